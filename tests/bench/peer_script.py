import sys, orjson

groups = {}
for line in open(sys.argv[1], "rb"):
    record = orjson.loads(line)
    key, latency = (record["ts"] // 5000, record["page"]), record["latency_ms"]
    group = groups.setdefault(key, [0, 0, 0])
    group[0] += 1
    group[1] += latency
    if latency > group[2]:
        group[2] = latency
with open(sys.argv[2], "w") as out:
    for (window, page), (n, total, slowest) in sorted(groups.items()):
        out.write('{"w":%d,"page":"%s","n":%d,"mean":%r,"slowest":%d}\n' % (window * 5000, page, n, total / n, slowest))
