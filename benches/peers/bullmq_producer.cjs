// The producer of the BullMQ peer. With `add` and `bulk` it prints the seconds that the adding took.
//   node bullmq_producer.cjs add COUNT DATA IN_FLIGHT | bulk COUNT DATA SIZE | pace RATE COUNT
const fs = require('node:fs');
const { Queue } = require('bullmq');

const [verb, ...args] = process.argv.slice(2);
const queue = new Queue('bench', { connection: { port: Number(process.env.BENCH_PORT) } });
const seconds = () => Number(process.hrtime.bigint()) / 1e9;

async function add(count, data, inFlight) {
  let left = count;
  const one = async () => {
    while (left > 0) {
      left -= 1;
      await queue.add('noop', { data });
    }
  };
  await Promise.all(Array.from({ length: inFlight }, one));
}

async function bulk(count, data, size) {
  for (let left = count; left > 0; left -= size) {
    const jobs = Array.from({ length: Math.min(left, size) }, () => ({ name: 'noop', data: { data } }));
    await queue.addBulk(jobs);
  }
}

async function pace(rate, count) {
  const sent = [];
  const adding = [];
  const began = seconds();
  for (let number = 0; number < count; number += 1) {
    const rest = began + number / rate - seconds();
    if (rest > 0) await new Promise((done) => { setTimeout(done, rest * 1000); });
    sent.push(`${number} ${process.hrtime.bigint()}\n`);
    adding.push(queue.add('stamp', { number }));
  }
  await Promise.all(adding);
  fs.writeFileSync(process.env.BENCH_SENT, sent.join(''));
}

async function main() {
  await queue.waitUntilReady();
  const began = seconds();
  if (verb === 'add') await add(Number(args[0]), args[1], Number(args[2]));
  if (verb === 'bulk') await bulk(Number(args[0]), args[1], Number(args[2]));
  if (verb === 'pace') await pace(Number(args[0]), Number(args[1]));
  console.log(seconds() - began);
  await queue.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
