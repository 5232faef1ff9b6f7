// A stand-in for the few Grafana back-end endpoints the real front-end packages call, in front of a real Prometheus.
//   POST /api/ds/query                                  range / instant queries -> Grafana data frames
//   *    /api/datasources/uid/<uid>/resources/api/v1/*  passed to Prometheus (label_values(), rules, metadata ...)
//   GET  /dashboards/<file or uid>.json, /public/*, /d/*  the dashboards under test, Grafana's icons, the page
// usage: node server.mjs --prom http://127.0.0.1:9090 --dashboards DIR --port 0
import http from 'node:http';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

const here = path.dirname(new URL(import.meta.url).pathname);
export function start({ prom, dashboards, port = 0, scrapeInterval = 1 }) {
  const log = []; // every query that went out, for the checks
  const dur = (s) => {
    const m = /^(\d+)(ms|s|m|h|d|w|y)$/.exec(String(s).replace(/^[<>]/, ''));
    return m
      ? Number(m[1]) * { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, w: 604800, y: 31536000 }[m[2]]
      : scrapeInterval;
  };
  const fmt = (s) => (s >= 1 && Number.isInteger(s) ? `${s}s` : `${Math.round(s * 1000)}ms`);
  // Grafana's backend rounds an interval to a "nice" value
  const nice = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800,
    21600, 43200, 86400,
  ];
  const round = (s) => {
    for (let i = 0; i < nice.length - 1; i++) if (s <= (nice[i] + nice[i + 1]) / 2) return nice[i];
    return nice.at(-1);
  };
  function plan(q, from, to) {
    const range = (to - from) / 1000;
    const min = q.interval ? dur(q.interval) : scrapeInterval;
    const step =
      Math.max(round(range / (q.maxDataPoints || 1500)), min, round(range / 11000)) * (q.intervalFactor || 1);
    const rate = Math.max(step + scrapeInterval, 4 * scrapeInterval);
    const expr = q.expr
      .replace(/\$\{?__rate_interval_ms\}?/g, String(rate * 1000))
      .replace(/\$\{?__rate_interval\}?/g, fmt(rate))
      .replace(/\$\{?__interval_ms\}?/g, String(step * 1000))
      .replace(/\$\{?__interval\}?/g, fmt(step))
      .replace(/\$\{?__range_ms\}?/g, String(Math.round(range * 1000)))
      .replace(/\$\{?__range_s\}?/g, String(Math.round(range)))
      .replace(/\$\{?__range\}?/g, `${Math.round(range)}s`);
    return {
      expr,
      step,
      start: Math.floor(from / 1000 / step) * step,
      end: Math.floor(to / 1000 / step) * step,
      at: to / 1000,
    };
  }
  const num = (v) => (v === 'NaN' ? null : v === '+Inf' ? Infinity : v === '-Inf' ? -Infinity : Number(v));
  const series = (m) => {
    const { __name__ = '', ...l } = m;
    const k = Object.keys(l).sort();
    return __name__ + (k.length || !__name__ ? `{${k.map((x) => `${x}="${l[x]}"`).join(', ')}}` : '');
  };
  const legend = (q, m) => {
    if (q.legendFormat === '__auto') return Object.keys(m).length ? '' : q.expr;
    if (!q.legendFormat) return series(m) === '{}' ? q.expr : series(m);
    const s = q.legendFormat.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, k) => m[k] ?? '');
    return s === '' ? series(m) : s;
  };
  async function one(q, from, to) {
    const p = plan(q, from, to);
    const kind = q.instant && !q.range ? 'query' : 'query_range';
    const body = new URLSearchParams(
      kind === 'query'
        ? { query: p.expr, time: String(p.at) }
        : { query: p.expr, start: String(p.start), end: String(p.end), step: String(p.step) },
    );
    const r = await fetch(`${prom}/api/v1/${kind}`, { method: 'POST', body });
    const j = await r.json();
    log.push({
      refId: q.refId,
      kind,
      expr: p.expr,
      step: p.step,
      status: j.status,
      error: j.error,
      series: j.data?.result?.length ?? 0,
    });
    if (j.status !== 'success') return { status: r.status, error: `${j.errorType}: ${j.error}`, frames: [] };
    const { resultType, result } = j.data;
    const rows = resultType === 'scalar' ? [{ metric: {}, value: result }] : result;
    const frames = rows.map((s) => {
      const vals = s.values ?? [s.value];
      const num_ = vals.map((v) => num(v[1]));
      const ent = { NaN: [], Inf: [], NegInf: [] };
      num_.forEach((v, i) => {
        if (v === Infinity) {
          ent.Inf.push(i);
          num_[i] = null;
        } else if (v === -Infinity) {
          ent.NegInf.push(i);
          num_[i] = null;
        } else if (v === null) ent.NaN.push(i);
      });
      return {
        schema: {
          refId: q.refId,
          name: undefined,
          meta: {
            type: resultType === 'matrix' ? 'timeseries-multi' : 'numeric-multi',
            typeVersion: [0, 1],
            custom: { resultType },
            executedQueryString: `Expr: ${p.expr}\nStep: ${fmt(p.step)}`,
          },
          fields: [
            { name: 'Time', type: 'time', typeInfo: { frame: 'time.Time' }, config: { interval: p.step * 1000 } },
            {
              name: 'Value',
              type: 'number',
              typeInfo: { frame: 'float64' },
              labels: s.metric,
              config: { displayNameFromDS: legend(q, s.metric) || undefined },
            },
          ],
        },
        data: { values: [vals.map((v) => Math.round(v[0] * 1000)), num_], entities: [null, ent] },
      };
    });
    if (!frames.length)
      frames.push({
        schema: { refId: q.refId, meta: { type: 'timeseries-multi', custom: { resultType } }, fields: [] },
        data: { values: [] },
      });
    return { status: 200, frames };
  }
  const types = {
    '.html': 'text/html',
    '.js': 'text/javascript',
    '.css': 'text/css',
    '.svg': 'image/svg+xml',
    '.json': 'application/json',
    '.map': 'application/json',
    '.woff2': 'font/woff2',
  };
  // A dashboard by the name of its file, or by its uid, as links have it.
  const file = (name) => {
    const named = path.join(dashboards, name);
    if (fs.existsSync(named)) return named;
    const files = fs.readdirSync(dashboards).filter((one) => one.endsWith('.json'));
    const found = files.find((one) => JSON.parse(fs.readFileSync(path.join(dashboards, one))).uid === path.parse(name).name);
    return found ? path.join(dashboards, found) : named;
  };
  const body = (req) =>
    new Promise((res) => {
      const c = [];
      req.on('data', (d) => c.push(d));
      req.on('end', () => res(Buffer.concat(c)));
    });
  const server = http.createServer(async (req, res) => {
    try {
      const u = new URL(req.url, 'http://x');
      if (u.pathname === '/api/ds/query') {
        const b = JSON.parse(await body(req));
        const out = {};
        await Promise.all(
          b.queries.map(async (q) => {
            out[q.refId] = await one(q, Number(b.from), Number(b.to));
          }),
        );
        const bad = Object.values(out).some((x) => x.error);
        res.writeHead(bad ? 400 : 200, { 'content-type': 'application/json' });
        return res.end(JSON.stringify({ results: out }));
      }
      const m = /^\/api\/datasources\/uid\/[^/]+\/resources\/(.*)$/.exec(u.pathname);
      if (m) {
        const r = await fetch(
          `${prom}/${m[1].replace(/^\/+/, '')}${u.search}`,
          req.method === 'POST'
            ? {
                method: 'POST',
                body: await body(req),
                headers: { 'content-type': req.headers['content-type'] ?? 'application/x-www-form-urlencoded' },
              }
            : {},
        );
        const t = await r.text();
        res.writeHead(r.status, { 'content-type': 'application/json' });
        return res.end(t);
      }
      let f;
      if (u.pathname.startsWith('/d/')) f = path.join(here, 'index.html');
      else if (u.pathname.startsWith('/dashboards/')) f = file(path.basename(u.pathname));
      else if (u.pathname.includes('/img/icons/'))
        f = path.join(here, 'node_modules/@grafana/ui/dist/public/img/icons', u.pathname.split('/img/icons/')[1]);
      else f = path.join(here, 'dist', path.normalize(u.pathname).replace(/^(\.\.)+/, ''));
      if (!fs.existsSync(f) || fs.statSync(f).isDirectory()) {
        res.writeHead(404);
        return res.end('not found');
      }
      res.writeHead(200, { 'content-type': types[path.extname(f)] ?? 'application/octet-stream' });
      fs.createReadStream(f).pipe(res);
    } catch (e) {
      res.writeHead(500);
      res.end(String(e?.stack ?? e));
    }
  });
  return new Promise((ok) =>
    server.listen(port, '127.0.0.1', () => ok({ server, log, url: `http://127.0.0.1:${server.address().port}` })),
  );
}
if (process.argv[1] === new URL(import.meta.url).pathname) {
  const { values: v } = parseArgs({
    options: { prom: { type: 'string' }, dashboards: { type: 'string' }, port: { type: 'string', default: '0' } },
  });
  const s = await start({ prom: v.prom, dashboards: v.dashboards, port: Number(v.port) });
  console.log(s.url);
}
