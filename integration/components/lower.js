// Writes words in lower case. A bolt in Node with its own protocol code: it handles messages as they
// arrive, and acks an input when the worker has said which tasks received its emit.
'use strict';
const fs = require('fs');
const path = require('path');

let received = '';
const waiting = [];

function send(message) {
  process.stdout.write(JSON.stringify(message) + '\nend\n');
}

function handle(message) {
  if (Array.isArray(message)) {
    // Replies come in the order of the emits.
    const id = waiting.shift();
    send({ command: message.length > 0 ? 'ack' : 'fail', id });
  } else if (message.pidDir) {
    fs.writeFileSync(path.join(message.pidDir, String(process.pid)), '');
    send({ pid: process.pid });
  } else if (message.stream === '__heartbeat') {
    send({ command: 'sync' });
  } else {
    waiting.push(message.id);
    send({ command: 'emit', anchors: [message.id], tuple: [message.tuple[0].toLowerCase()], need_task_ids: true });
  }
}

process.stdin.setEncoding('utf8');
process.stdin.on('data', (data) => {
  received += data;
  for (let end = received.indexOf('\nend\n'); end >= 0; end = received.indexOf('\nend\n')) {
    const message = received.slice(0, end);
    received = received.slice(end + 5);
    handle(JSON.parse(message));
  }
});
process.stdin.on('end', () => process.exit(0));
