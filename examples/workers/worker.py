"""A Tidegate worker with nothing but Python's standard library:
python3 worker.py --url http://127.0.0.1:7700 --queue default --lanes 4 [--token TOKEN]"""
import argparse, http.client, itertools, json, os, random, signal, socket, sys, threading, time, uuid
import urllib.error, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("--url", default=os.environ.get("TIDEGATE_URL", "http://127.0.0.1:7700"))
parser.add_argument("--queue", default=os.environ.get("TIDEGATE_QUEUE", "default"))
parser.add_argument("--token", default=os.environ.get("TIDEGATE_TOKEN"))
parser.add_argument("--lanes", type=int, default=4, help="jobs worked on at the same time")
args = parser.parse_args()

NAME = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"  # never the same twice
HEADERS = {"Content-Type": "application/json", **({"Authorization": f"Bearer {args.token}"} if args.token else {})}
stopping = threading.Event()
leases = {}  # lease -> Event that says "stop working on it": cancelled, or no longer ours
lease_ms = 1000  # until the first claim tells

HANDLERS = {  # your work goes here: return what JSON can say, raise to fail
    "email": lambda data, stop: {"sent": data["to"]},
    "sum": lambda data, stop: {"sum": sum(data["numbers"])},
    "nap": lambda data, stop: stop.wait(data["ms"] / 1000),  # long work looks at `stop` now and then
}

def post(verb, body):
    """One call, repeated while the server is away: a lease makes that harmless."""
    request = urllib.request.Request(f"{args.url.rstrip('/')}/api/queues/{args.queue}/{verb}", json.dumps(body).encode(), HEADERS)
    for attempt in itertools.count():
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise RuntimeError(f"{verb} refused: {error.code} {error.read().decode()}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            print(f"cannot {verb}: {error}", file=sys.stderr, flush=True)
        if stopping.is_set() and attempt > 3: return {}  # not worth waiting for: a lease runs out by itself
        time.sleep(0.1 * 2 ** min(attempt, 6) * random.uniform(0.5, 1))

def beat():
    while True:
        time.sleep(lease_ms / 5000)  # a fifth of the lease, in seconds
        if held := dict(leases):
            answer = post("beat", {"worker": NAME, "leases": list(held)})
            for lease in answer.get("cancelled", []) + answer.get("stale", []):
                held[lease].set()

def lane():
    global lease_ms
    claim, jobs = {"limit": 1, "waitMs": 5000}, []
    while not stopping.is_set():
        if not jobs:
            answer = post("claim", {"worker": NAME, **claim})
            jobs, lease_ms = answer.get("jobs", []), answer.get("leaseMs", lease_ms)
            continue
        job = jobs.pop()
        lease, leases[job["lease"]] = job["lease"], threading.Event()
        try:
            done = {"lease": lease, "result": HANDLERS[job["jobType"]](job["data"], leases[lease])}
            if leases.pop(lease).is_set():  # it ends now: no beat asks about it any more
                raise InterruptedError("told to stop")
            answer = post("complete", {"results": [done], **({} if stopping.is_set() else {"claim": claim})})
        except Exception as error:
            answer = post("fail", {"failures": [{"lease": lease, "error": repr(error)}]})
        leases.pop(lease, None)
        print(job["jobId"], *answer.get("outcomes", ["unknown"]), flush=True)
        jobs = answer.get("jobs", [])
    if jobs:  # claimed while stopping: back they go, unstarted
        post("release", {"leases": [job["lease"] for job in jobs]})

threading.excepthook = lambda failure: (print(failure.exc_value, file=sys.stderr), os._exit(1))  # refused: wrong token?
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stopping.set())
lanes = [threading.Thread(target=lane) for _ in range(args.lanes)]
for thread in [threading.Thread(target=beat, daemon=True), *lanes]:
    thread.start()
print(f"{NAME} works on {args.queue}", flush=True)
for thread in lanes:
    thread.join()
