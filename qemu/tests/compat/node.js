// HTTP and express, worker threads, child processes, file watching, streams, crypto.
'use strict';
const assert = require('assert');
const { execFile, fork, spawn, spawnSync } = require('child_process');
const { once } = require('events');
const crypto = require('crypto');
const dns = require('dns').promises;
const fs = require('fs');
const http = require('http');
const net = require('net');
const os = require('os');
const path = require('path');
const { pipeline } = require('stream/promises');
const { promisify } = require('util');
const zlib = require('zlib');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

if (process.argv[2] === 'child') {
  process.on('message', (m) => { process.send({ twice: m.n * 2 }); process.disconnect(); });
} else if (!isMainThread) {
  const view = new Int32Array(workerData);
  for (let i = 0; i < 1000; i++) Atomics.add(view, 0, 1);
  parentPort.postMessage(crypto.createHash('sha256').update('worker').digest('hex').slice(0, 8));
} else {
  main().catch((error) => { console.log('failed', error); process.exit(1); });
}

async function main() {
  console.log('== http');
  const server = http.createServer((request, response) => {
    let size = 0;
    request.on('data', (part) => { size += part.length; });
    request.on('end', () => response.end(JSON.stringify({ url: request.url, size })));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const agent = new http.Agent({ keepAlive: true });
  const ask = (n) => new Promise((resolve, reject) => {
    const request = http.request({ port, host: '127.0.0.1', path: `/${n}`, method: 'POST', agent }, (response) => {
      let text = '';
      response.on('data', (part) => { text += part; }).on('end', () => resolve(text));
    });
    request.on('error', reject).end('y'.repeat(n));
  });
  console.log(await Promise.all([1, 1000, 100000].map(ask)));
  console.log((await (await fetch(`http://127.0.0.1:${port}/fetched`)).json()).url);
  agent.destroy();
  server.close();

  console.log('== express');
  const express = require('/usr/share/nodejs/express');
  const app = express();
  app.use(express.json());
  app.get('/hello/:name', (request, response) => response.json({ hello: request.params.name, q: request.query }));
  app.post('/sum', (request, response) => response.send(String(request.body.reduce((a, b) => a + b, 0))));
  app.use((error, request, response, next) => response.status(400).send(error.type));
  const listening = app.listen(0, '127.0.0.1');
  await once(listening, 'listening');
  const at = `http://127.0.0.1:${listening.address().port}`;
  console.log(await (await fetch(`${at}/hello/skep?a=1&a=2`)).json());
  const headers = { 'content-type': 'application/json' };
  console.log(await (await fetch(`${at}/sum`, { method: 'POST', headers, body: '[1,2,3]' })).text());
  const bad = await fetch(`${at}/sum`, { method: 'POST', headers, body: '[1,' });
  console.log(bad.status, await bad.text(), (await fetch(`${at}/none`)).status);
  listening.closeAllConnections();
  listening.close();

  console.log('== workers');
  const shared = new SharedArrayBuffer(4);
  const answers = await Promise.all([1, 2, 3, 4].map(async () => {
    const worker = new Worker(__filename, { workerData: shared });
    // Both may come at once.
    const ended = once(worker, 'exit');
    const [answer] = await once(worker, 'message');
    await ended;
    return answer;
  }));
  console.log(answers.join(), new Int32Array(shared)[0]);

  console.log('== processes');
  const ran = spawnSync('sh', ['-c', 'cat; echo err >&2; exit 4'], { input: 'given' });
  console.log(String(ran.stdout), String(ran.stderr).trim(), ran.status);
  const { stdout } = await promisify(execFile)('seq', ['3']);
  console.log(stdout.split('\n').join(' '));
  const child = fork(__filename, ['child']);
  child.send({ n: 21 });
  const gone = once(child, 'exit');
  console.log((await once(child, 'message'))[0], (await gone)[0]);
  const sleeper = spawn('sleep', ['100']);
  sleeper.kill('SIGTERM');
  console.log(await once(sleeper, 'exit'));
  process.once('SIGUSR2', () => console.log('signal seen'));
  process.kill(process.pid, 'SIGUSR2');
  await new Promise((resolve) => setTimeout(resolve, 50));

  console.log('== files');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'node-'));
  const file = path.join(folder, 'file');
  const seen = new Promise((resolve) => {
    const watcher = fs.watch(folder, (kind, name) => { watcher.close(); resolve([kind, name]); });
  });
  await fs.promises.writeFile(file, 'a'.repeat(300000));
  console.log(await seen);
  await pipeline(fs.createReadStream(file), zlib.createGzip(), fs.createWriteStream(file + '.gz'));
  console.log(zlib.gunzipSync(fs.readFileSync(file + '.gz')).length, fs.statSync(file).size);
  await fs.promises.copyFile(file, file + '.copy');
  await fs.promises.rename(file + '.copy', path.join(folder, 'moved'));
  await fs.promises.symlink('moved', path.join(folder, 'link'));
  console.log((await fs.promises.readdir(folder)).sort(), fs.realpathSync(path.join(folder, 'link')).endsWith('moved'));
  fs.rmSync(folder, { recursive: true });
  console.log(fs.existsSync(folder));

  console.log('== sockets');
  const socketPath = path.join(os.tmpdir(), `s${process.pid}`);
  const echo = net.createServer((c) => c.pipe(c)).listen(socketPath);
  await once(echo, 'listening');
  const client = net.connect(socketPath);
  client.end('over a unix socket');
  const parts = [];
  for await (const part of client) parts.push(part);
  console.log(String(Buffer.concat(parts)));
  echo.close();
  const refused = net.connect(1, '127.0.0.1');
  console.log((await once(refused, 'error').catch((e) => [e]))[0].code);
  console.log((await dns.lookup('localhost', { family: 4 })).address);

  console.log('== crypto and timers');
  console.log(crypto.scryptSync('secret', 'salt', 16).toString('hex'));
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ed25519');
  console.log(crypto.verify(null, Buffer.from('x'), publicKey, crypto.sign(null, Buffer.from('x'), privateKey)));
  const order = [];
  await new Promise((resolve) => {
    setTimeout(() => { order.push('timeout'); resolve(); }, 20);
    setImmediate(() => order.push('immediate'));
    process.nextTick(() => order.push('tick'));
    Promise.resolve().then(() => order.push('promise'));
  });
  console.log(order.join());
  assert(process.memoryUsage().heapUsed > 0);
  const start = process.hrtime.bigint();
  let rubbish = [];
  for (let i = 0; i < 200; i++) { rubbish = []; for (let j = 0; j < 5000; j++) rubbish.push({ i, j, s: `${i}${j}` }); }
  console.log(rubbish.length, process.hrtime.bigint() > start);
}
