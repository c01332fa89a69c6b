// The BullMQ peer: node bullmq_worker.cjs CONCURRENCY QUEUE...
// A job that carries a number says when it began, as peers/stamps.py does.
const fs = require('node:fs');
const { Worker } = require('bullmq');

const [concurrency, ...queues] = process.argv.slice(2);
const connection = { port: Number(process.env.BENCH_PORT), maxRetriesPerRequest: null };
const stamps = process.env.BENCH_STAMPS ? fs.openSync(process.env.BENCH_STAMPS, 'a') : null;

async function handle(job) {
  if (job.data.number !== undefined) {
    fs.writeSync(stamps, `${job.data.number} ${process.hrtime.bigint()}\n`);
  }
}

for (const queue of queues) {
  const worker = new Worker(queue, handle, { connection, concurrency: Number(concurrency) });
  worker.on('error', (error) => { console.error(error); process.exit(1); });
}
