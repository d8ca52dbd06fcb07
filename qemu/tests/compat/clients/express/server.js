// express as npm installs it, with what most programs use of it.
const express = require('express');
const path = require('path');
const app = express();
app.use(express.json({ limit: '4mb' }));
app.use(express.urlencoded({ extended: true }));
app.use('/static', express.static(path.join(__dirname, 'node_modules/express')));
app.get('/', (request, response) => response.send('hello'));
app.get('/people/:name', (request, response) => response.json({ name: request.params.name, query: request.query }));
app.post('/sum', (request, response) => response.json({ sum: request.body.reduce((a, b) => a + b, 0) }));
app.post('/form', (request, response) => response.json(request.body));
app.get('/stream', (request, response) => {
    response.type('text/plain');
    let n = 0;
    const more = () => {
        while (n < 20000) if (!response.write(`line ${n++}\n`)) return response.once('drain', more);
        response.end();
    };
    more();
});
app.get('/slow', (request, response) => setTimeout(() => response.send('late'), 200));
app.get('/broken', () => { throw new Error('broken on purpose'); });
app.use((error, request, response, next) => response.status(500).send(error.message));
app.listen(3000, '0.0.0.0');
