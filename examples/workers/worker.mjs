// A Tidegate worker with nothing but Node.js 18 or newer.
//
//     node worker.mjs --url http://127.0.0.1:7700 --queue default --lanes 4 [--token TOKEN]
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const { values: args } = parseArgs({
  options: {
    url: { type: "string", default: process.env.TIDEGATE_URL ?? "http://127.0.0.1:7700" },
    queue: { type: "string", default: process.env.TIDEGATE_QUEUE ?? "default" },
    token: { type: "string", default: process.env.TIDEGATE_TOKEN ?? "" },
    lanes: { type: "string", default: "4" }, // jobs worked on at the same time
  },
});
const worker = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`; // never the same twice
const headers = { "content-type": "application/json", ...(args.token && { authorization: `Bearer ${args.token}` }) };
const queue = `${args.url.replace(/\/+$/, "")}/api/queues/${args.queue}`;
const leases = new Map(); // lease -> AbortController: cancelled, or no longer ours
let stopping = false;
let leaseMs = 1000; // until the first claim tells

/** Your work goes here: return what JSON can say, throw to fail. */
const handlers = {
  email: async ({ to }) => ({ sent: to }),
  sum: async ({ numbers }) => ({ sum: numbers.reduce((sum, number) => sum + number, 0) }),
  nap: async ({ ms }, signal) => sleep(ms, false, { signal }), // long work listens to `signal`, and throws
};

/** One call, repeated while the server is away: a lease makes the repetition harmless. */
async function post(verb, body) {
  const request = { method: "POST", headers, body: JSON.stringify(body) };
  for (let pause = 100; ; pause = Math.min(pause * 2, 5000)) {
    const reply = await fetch(`${queue}/${verb}`, { ...request, signal: AbortSignal.timeout(60_000) })
      .then(async (reply) => ({ status: reply.status, ...(await reply.json()) }))
      .catch((error) => ({ status: 503, detail: error.cause?.message ?? error.message }));
    if (reply.success) return reply.data;
    if (reply.status < 500 && ![408, 429].includes(reply.status)) throw new Error(`${verb} refused: ${reply.detail}`);
    console.error(`cannot ${verb}: ${reply.detail}`);
    if (stopping && pause > 1000) return {}; // not worth waiting for: a lease runs out by itself
    await sleep(pause * (0.5 + Math.random() / 2));
  }
}

async function beat() {
  while (await sleep(leaseMs / 5, true)) {
    if (leases.size === 0) continue;
    const { cancelled = [], stale = [] } = await post("beat", { worker, leases: [...leases.keys()] });
    for (const lease of [...cancelled, ...stale]) leases.get(lease)?.abort();
  }
}

async function lane() {
  const claim = { limit: 1, waitMs: 5000 };
  let jobs = [];
  while (!stopping) {
    if (jobs.length === 0) {
      ({ jobs = [], leaseMs = leaseMs } = await post("claim", { worker, ...claim }));
      continue;
    }
    const { lease, jobId, jobType, data } = jobs.pop();
    leases.set(lease, new AbortController());
    const answer = await Promise.resolve(handlers[jobType] ?? Promise.reject(new Error(`no handler for ${jobType}`)))
      .then((handler) => handler(data, leases.get(lease).signal))
      .finally(() => leases.delete(lease)) // it ends now: no beat asks about it any more
      .then((result) => post("complete", { results: [{ lease, result }], ...(!stopping && { claim }) }))
      .catch((error) => post("fail", { failures: [{ lease, error: String(error) }] }));
    console.log(jobId, ...(answer.outcomes ?? ["unknown"]));
    jobs = answer.jobs ?? [];
  }
  if (jobs.length > 0) await post("release", { leases: jobs.map((job) => job.lease) }); // claimed too late: unstarted
}

for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => (stopping = true));
console.log(`${worker} works on ${args.queue}`);
beat();
await Promise.all(Array.from({ length: Number(args.lanes) }, lane));
process.exit();
