// BentoCache as a peer of our benches: `node peer.mjs <redis url> hit <reads> <keys>` prints nanoseconds per `get` and per
// `getOrSet` of values that are in memory, with Redis and its bus behind, as zipf has them asked for. It is the time the
// process computes, as in the rows beside.
import { BentoCache, bentostore } from 'bentocache';
import { memoryDriver } from 'bentocache/drivers/memory';
import { redisBusDriver, redisDriver } from 'bentocache/drivers/redis';

const [url, verb, ...numbers] = process.argv.slice(2);
const [reads, count] = numbers.map(Number);
const { hostname: host, port } = new URL(url);
const connection = { host, port: Number(port) };

const store = bentostore()
  .useL1Layer(memoryDriver({ maxItems: 2 * count }))
  .useL2Layer(redisDriver({ connection }))
  .useBus(redisBusDriver({ connection }));
const cache = new BentoCache({ default: 'bench', stores: { bench: store } });
const key = (number) => `user:${String(number).padStart(8, '0')}:profile`;

// Rank r in proportion to 1 / (r + 1)^0.99.
function asked() {
  const sums = [];
  let sum = 0;
  for (let rank = 0; rank < count; rank++) sums.push(sum += 1 / (rank + 1) ** 0.99);
  return Array.from({ length: reads }, () => {
    const at = Math.random() * sum;
    let [low, high] = [0, count - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle] < at) low = middle + 1; else high = middle;
    }
    return key(low);
  });
}

async function nanoseconds(keys, read) {
  const began = process.cpuUsage();
  for (const one of keys) await read(one);
  const { user, system } = process.cpuUsage(began);
  return ((user + system) * 1e3) / keys.length;
}

async function hit() {
  for (let number = 0; number < count; number++) {
    await cache.set({ key: key(number), value: 'x'.repeat(100 + (number % 50)) });
  }
  const keys = asked();
  const get = (one) => cache.get({ key: one });
  const getOrSet = (one) => cache.getOrSet({ key: one, factory: () => { throw new Error(`${one} is not there`); } });
  const figures = [[], []];
  for (let round = 0; round < 5; round++) {
    figures[0].push(await nanoseconds(keys, get));
    figures[1].push(await nanoseconds(keys, getOrSet));
  }
  return figures.map((values) => values.sort((one, other) => one - other)[2]);
}

const verbs = { hit };
console.log((await verbs[verb]()).join(' '));
process.exit(0);
