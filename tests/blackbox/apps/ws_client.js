// SPDX-License-Identifier: Apache-2.0
// node's ws as a client: node ws_client.js URL. Says "good" when everything came back as it should.
const {WebSocket} = require('ws');
const crypto = require('crypto');

const messages = [];
for (const size of [0, 1, 125, 126, 65535, 65536, 900000]) {
    messages.push(crypto.randomBytes(size).toString('hex').slice(0, size));
    messages.push(crypto.randomBytes(size));
}
let next = 0;
const fail = (why) => {
    console.log(why);
    process.exit(1);
};
const socket = new WebSocket(process.argv[2], {maxPayload: 1 << 30});
socket.on('error', (error) => fail(`error: ${error.message}`));
socket.on('unexpected-response', (_, response) => fail(`status ${response.statusCode}`));
socket.on('open', () => socket.ping('are you there'));
socket.on('pong', (data) => {
    if (data.toString() !== 'are you there') {
        fail(`pong ${data}`);
    }
    socket.send(messages[0]);
});
socket.on('message', (data, isBinary) => {
    const sent = messages[next];
    if (isBinary !== Buffer.isBuffer(sent) || !Buffer.from(sent).equals(data)) {
        fail(`message ${next} came back as another`);
    }
    next++;
    socket.send(next < messages.length ? messages[next] : 'close 4321');
});
socket.on('close', (code, reason) => {
    if (next !== messages.length || code !== 4321) {
        fail(`closed with ${code} ${reason} after ${next} messages`);
    }
    console.log('good');
});
