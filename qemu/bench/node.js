#!/usr/bin/node
// What people do with Node.js, timed in the guest; prints "name value unit" lines.
'use strict';
const { spawnSync } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const { Worker, isMainThread, parentPort } = require('worker_threads');

const say = (name, value, unit) => fs.writeSync(1, `node_${name} ${value} ${unit}\n`);
const ms = () => Number(process.hrtime.bigint()) / 1e6;

async function timed(name, work) {
  const start = ms();
  await work();
  say(name, (ms() - start).toFixed(1), 'ms');
}

function json() {
  const value = { list: [...Array(50).keys()], nested: { text: 'd'.repeat(50) } };
  for (let i = 0; i < 2000; i++) JSON.parse(JSON.stringify(value));
}

function maps() {
  const map = new Map();
  for (let i = 0; i < 100000; i++) map.set(`k${i % 997}`, (map.get(`k${i % 997}`) || 0) + i);
  return [...map].sort((a, b) => b[1] - a[1]);
}

function sha256() {
  const block = Buffer.alloc(65536);
  for (let i = 0; i < 100; i++) crypto.createHash('sha256').update(block).digest();
}

function files() {
  for (let i = 0; i < 100; i++) {
    const path = `/tmp/node${i}`;
    fs.writeFileSync(path, 'x'.repeat(5000));
    fs.readFileSync(path);
    fs.unlinkSync(path);
  }
}

async function promises() {
  for (let i = 0; i < 100; i++) await fs.promises.stat('/tmp');
}

async function workers() {
  const worker = new Worker(__filename);
  for (let i = 0; i < 1000; i++) {
    await new Promise((done) => {
      worker.once('message', done);
      worker.postMessage(i);
    });
  }
  await worker.terminate();
}

// Answers a second of an HTTP server, asked over loopback by eight kept connections.
async function serving() {
  const server = http.createServer((_, response) => response.end('hello'));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const ask = () => new Promise((done, fail) => {
    http.get({ agent, port: server.address().port, host: '127.0.0.1' }, (answer) => {
      answer.resume();
      answer.on('end', done);
    }).on('error', fail);
  });
  const count = 1000;
  const start = ms();
  for (let i = 0; i < count; i += 8) await Promise.all(Array.from({ length: 8 }, ask));
  say('http', (count / (ms() - start) * 1000).toFixed(0), 'req/s');
  agent.destroy();
  server.close();
}

async function main() {
  await timed('start', () => spawnSync(process.execPath, ['-e', '0']));
  await timed('start_again', () => spawnSync(process.execPath, ['-e', '0']));
  await timed('json', json);
  await timed('maps', maps);
  await timed('sha256', sha256);
  await timed('files', files);
  await timed('promises', promises);
  await timed('workers', workers);
  await timed('spawn', () => { for (let i = 0; i < 5; i++) spawnSync('/bin/true'); });
  await serving();
}

if (isMainThread) main();
else parentPort.on('message', (value) => parentPort.postMessage(value));
