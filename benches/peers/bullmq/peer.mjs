// BullMQ as a peer of our benches: `node peer.mjs <redis url> <verb> <number…>` prints figures in one line; the verbs are
// described in benches/src/peers.rs. Jobs are forgotten when they are done, as ours are in the rows beside.
import { Queue, Worker } from 'bullmq';
import IORedis from 'ioredis';

const [url, verb, ...numbers] = process.argv.slice(2);
const [count, parameter] = numbers.map(Number);

const connect = () => new IORedis(url, { maxRetriesPerRequest: null });
const queue = new Queue('bench', { connection: connect() });
const opts = { removeOnComplete: true };
const data = (number) => ({ id: String(number).padStart(12, '0'), name: 'thumbnail' });
const now = () => Number(process.hrtime.bigint()) / 1e3;
const rate = (since) => (count / (now() - since)) * 1e6;

async function bulk(chunk) {
  const began = now();
  for (let first = 0; first < count; first += chunk) {
    const jobs = Array.from({ length: chunk }, (_, at) => ({ name: 'noop', data: data(first + at), opts }));
    await queue.addBulk(jobs);
  }
  return [rate(began)];
}

async function callers(tasks) {
  const began = now();
  let next = 0;
  const caller = async () => {
    while (next < count) await queue.add('noop', data(next++), opts);
  };
  await Promise.all(Array.from({ length: tasks }, caller));
  return [rate(began)];
}

async function drain(concurrency) {
  await bulk(1000);
  let done = 0;
  const began = now();
  const worker = new Worker('bench', async () => {}, { connection: connect(), concurrency });
  await new Promise((resolve) => worker.on('completed', () => ++done === count && resolve()));
  const figure = rate(began);
  await worker.close();
  return [figure];
}

async function start() {
  const waits = [];
  let all;
  const finished = new Promise((resolve) => { all = resolve; });
  const worker = new Worker('bench', async (job) => {
    waits.push(now() - job.data.sent);
    if (waits.length === count) all();
  }, { connection: connect(), concurrency: 10 });
  await worker.waitUntilReady();
  const began = now();
  for (let sent = 0; sent < count; sent++) {
    while (now() < began + sent * 2000) await new Promise((resolve) => setTimeout(resolve, 1));
    await queue.add('timed', { sent: now() }, opts);
  }
  await finished;
  await worker.close();
  waits.sort((one, other) => one - other);
  return [0.5, 0.99].map((quantile) => waits[Math.floor((count - 1) * quantile)]);
}

const verbs = { bulk, callers, drain, start, fill: () => bulk(1000).then(() => []) };
await queue.waitUntilReady();
const figures = await verbs[verb](parameter);
console.log(figures.join(' '));
process.exit(0);
