// SPDX-License-Identifier: Apache-2.0
// A node server that listens where PORT says, as on every platform that runs containers.
const http = require('http');

const server = http.createServer((request, response) => {
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({pid: process.pid, url: request.url, node: true}));
});
server.listen(Number(process.env.PORT), '127.0.0.1', () => console.log('node is up'));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
