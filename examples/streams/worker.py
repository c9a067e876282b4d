"""A consumer of a Tidegate event stream with nothing but Python's standard library:
python3 worker.py --url http://127.0.0.1:7700 --stream orders --group mail [--token TOKEN]"""
import argparse, http.client, itertools, json, os, random, signal, socket, sys, time, uuid
import urllib.error, urllib.parse, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("--url", default=os.environ.get("TIDEGATE_URL", "http://127.0.0.1:7700"))
parser.add_argument("--stream", default=os.environ.get("TIDEGATE_STREAM", "orders"))
parser.add_argument("--group", default=os.environ.get("TIDEGATE_GROUP", "mail"))
parser.add_argument("--token", default=os.environ.get("TIDEGATE_TOKEN"))
parser.add_argument("--limit", type=int, default=10, help="events per claim; 1 for work that can kill this process")
args = parser.parse_args()

NAME = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"[-64:]  # never the same twice
HEADERS = {"Content-Type": "application/json", **({"Authorization": f"Bearer {args.token}"} if args.token else {})}
GROUP = f"{args.url.rstrip('/')}/api/streams/{urllib.parse.quote(args.stream, safe='')}/groups/{args.group}"
stopping = False

class Later(Exception):
    """A trouble that passes and is not the event's fault: the mail server is down."""

def order_created(event):
    print("mail about order", event["data"]["order"], flush=True)

HANDLERS = {"order.created": order_created}  # your work goes here, by type; other types are passed over

def post(verb, body):
    """One call, repeated while the server is away: a second claim, ack or fail does no harm."""
    request = urllib.request.Request(f"{GROUP}/{verb}", json.dumps(body).encode(), HEADERS)
    for attempt in itertools.count():
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            problem = error.read().decode(errors="replace")
            if error.code == 404 and "stream_not_found" in problem:
                return {}  # nobody has published to it yet; the claim has waited
            if error.code < 500 and error.code not in (408, 429):
                sys.exit(f"{verb} refused: {error.code} {problem}")  # wrong token, wrong name
        except (OSError, ValueError, http.client.HTTPException) as error:
            print(f"cannot {verb}: {error}", file=sys.stderr, flush=True)
        if stopping and attempt > 3: return {}  # what is not acknowledged is delivered again
        time.sleep(0.1 * 2 ** min(attempt, 6) * random.uniform(0.5, 1))

def work(event):
    try:
        HANDLERS.get(event.get("type"), lambda event: None)(event)
    except Later as trouble:
        print(event["id"], "later:", trouble, flush=True)  # not acknowledged: it comes again after minIdleMs
        return
    except Exception as error:  # given back at once; after five deliveries it is a dead letter
        outcome = post("fail", {"ids": [event["id"]], "error": repr(error)})
    else:
        outcome = post("ack", {"ids": [event["id"]]})
    print(event["id"], *outcome.get("outcomes", ["unknown"]), flush=True)

def stop(*_):
    global stopping
    stopping = True

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
print(f"{NAME} consumes {args.stream} for {args.group}", flush=True)
while not stopping:
    claimed = post("claim", {"consumer": NAME, "limit": args.limit, "waitMs": 5000})
    if not claimed: time.sleep(random.uniform(0.5, 1))
    for event in claimed.get("deliveries", []):
        work(event)
