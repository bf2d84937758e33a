// SPDX-License-Identifier: Apache-2.0
// A page that is rendered while it is sent. With React the middle part is renderToPipeableStream();
// what matters to the way there is the same: write what there is, never wait for the whole.
const http = require('http');

// Stands for a database: each row takes its time.
async function* rows(count) {
    for (let number = 1; number <= count; number++) {
        await new Promise((resolve) => setTimeout(resolve, 200));
        yield `row ${number}`;
    }
}

async function render(request, response) {
    const url = new URL(request.url, 'http://localhost');
    const count = Math.min(Number(url.searchParams.get('rows') ?? 5) || 0, 100);
    response.writeHead(200, {'Content-Type': 'text/html; charset=utf-8'});
    // The browser loads the style while the rows are still being fetched.
    response.write('<!doctype html><title>rows</title>' +
        '<link rel="stylesheet" href="/assets/style.css"><h1>Rows</h1><ul>\n');
    for await (const row of rows(count)) {
        if (response.destroyed) {
            return; // the client left: no more work for it
        }
        if (!response.write(`<li>${row}</li>\n`)) {
            // The reader is slower than we are: go on when it has taken what there is, or has left.
            await new Promise((resolve) => response.once('drain', resolve).once('close', resolve));
        }
    }
    response.end(`</ul><p>rendered by ${process.pid}</p>\n`);
}

const server = http.createServer((request, response) => {
    render(request, response).catch((error) => {
        console.error(error);
        // A page that broke off must not look whole.
        response.destroy();
    });
});
// node closes idle connections after 5 s and says so in Keep-Alive; narwhal heeds it.
server.listen({fd: Number(process.argv[2])});
// narwhal sends SIGTERM when the instance shall leave: finish what is open, take nothing new.
process.on('SIGTERM', () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
});
