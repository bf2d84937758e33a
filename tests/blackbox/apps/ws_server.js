// SPDX-License-Identifier: Apache-2.0
// node's ws as a server: node ws_server.js FD. Sends back what it gets; "close N" closes with that
// code.
const {WebSocketServer} = require('ws');
const http = require('http');

const server = http.createServer((request, response) => response.end('ok'));
const sockets = new WebSocketServer({server, maxPayload: 1 << 30, perMessageDeflate: true});
sockets.on('connection', (socket) => {
    socket.on('message', (message, isBinary) => {
        if (!isBinary && message.toString().startsWith('close ')) {
            socket.close(Number(message.toString().slice(6)), 'as asked');
        } else {
            socket.send(message, {binary: isBinary});
        }
    });
});
server.listen({fd: Number(process.argv[2])});
process.on('SIGTERM', () => process.exit(0));
