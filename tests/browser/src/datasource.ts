// A Prometheus data source over POST /api/ds/query for this harness, so that nothing here needs @grafana/prometheus (AGPL-3.0).
// What Grafana's own does and the dashboards here use: variable interpolation, label_values() and friends, table and heatmap formats.
import { Observable, from, of } from 'rxjs';
import {
  AnnotationEvent,
  DataFrame,
  DataQueryRequest,
  DataQueryResponse,
  DataSourceApi,
  DataSourceInstanceSettings,
  Field,
  FieldType,
  MetricFindValue,
  createDataFrame,
  dataFrameFromJSON,
} from '@grafana/data';
import { getTemplateSrv } from '@grafana/runtime';

const escapeRegex = (s: string) => s.replace(/[\\^$*+?.()|[\]{}]/g, '\\\\$&');
const format = (v: any, variable: any) =>
  typeof v === 'string'
    ? variable.multi || variable.includeAll
      ? escapeRegex(v)
      : v
    : v.length === 1
      ? escapeRegex(v[0])
      : `(${v.map(escapeRegex).join('|')})`;

function table(frames: DataFrame[], refIds: number): DataFrame[] {
  if (!frames.length) return frames;
  const labels = [...new Set(frames.flatMap((f) => Object.keys(f.fields[1]?.labels ?? {})))].sort();
  const time: number[] = [],
    value: any[] = [],
    cols: Record<string, string[]> = Object.fromEntries(labels.map((l) => [l, []]));
  for (const f of frames)
    for (let i = 0; i < f.length; i++) {
      time.push(f.fields[0].values[i]);
      value.push(f.fields[1].values[i]);
      for (const l of labels) cols[l].push(f.fields[1].labels?.[l] ?? '');
    }
  const ref = frames[0].refId;
  const fields: Array<Partial<Field>> = [
    { name: 'Time', type: FieldType.time, values: time, config: {} },
    ...labels.map((l) => ({ name: l, type: FieldType.string, values: cols[l], config: { filterable: true } })),
    { name: refIds > 1 ? `Value #${ref}` : 'Value', type: FieldType.number, values: value, config: {} },
  ];
  return [
    createDataFrame({
      refId: ref,
      meta: { preferredVisualisationType: 'table', ...frames[0].meta },
      fields: fields as Field[],
    }),
  ];
}
function heatmap(frames: DataFrame[]): DataFrame[] {
  const le = (f: DataFrame) => (f.fields[1].labels?.le === '+Inf' ? Infinity : Number(f.fields[1].labels?.le));
  const rows = frames.filter((f) => f.fields[1]?.labels?.le !== undefined).sort((a, b) => le(a) - le(b));
  if (!rows.length) return frames;
  const byTime = rows.map((f) => new Map(f.fields[0].values.map((t: number, i: number) => [t, f.fields[1].values[i]])));
  const time = [...new Set(rows.flatMap((f) => f.fields[0].values))].sort((a, b) => a - b);
  return [
    createDataFrame({
      refId: rows[0].refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: time, config: { interval: rows[0].fields[0].config.interval } },
        ...rows.map((f, r) => ({
          name: f.fields[1].labels!.le,
          type: FieldType.number,
          config: {},
          values: time.map((t) => (byTime[r].has(t) ? byTime[r].get(t) - (r ? (byTime[r - 1].get(t) ?? 0) : 0) : null)),
        })),
      ] as Field[],
    }),
  ];
}
// Like Grafana's own: each series with values above 0 is an event, and its neighbouring values are one region.
function events(annotation: any, frames: DataFrame[]): AnnotationEvent[] {
  return frames.flatMap((frame) => {
    const step = frame.fields[0]?.config.interval ?? 60_000;
    const [times, values] = [frame.fields[0]?.values ?? [], frame.fields[1]?.values ?? []];
    const labels = frame.fields[1]?.labels ?? {};
    const text = (template = '') => template.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, name) => labels[name] ?? '');
    const found: AnnotationEvent[] = [];
    for (let i = 0; i < times.length; i++) {
      if (!(values[i] > 0)) continue;
      const last = found.at(-1);
      if (last && times[i] - (last.timeEnd ?? last.time!) <= step) last.timeEnd = times[i];
      else
        found.push({
          annotation,
          time: times[i],
          title: text(annotation.titleFormat),
          text: text(annotation.textFormat),
          tags: (annotation.tagKeys ?? '')
            .split(',')
            .map((key: string) => labels[key.trim()])
            .filter(Boolean),
        });
    }
    return found.map((event) => ({ ...event, isRegion: event.timeEnd !== undefined }));
  });
}
export class PrometheusDatasource extends DataSourceApi<any> {
  annotations: any = {
    prepareAnnotation: (json: any) => json,
    processEvents: (annotation: any, frames: DataFrame[]) => of(events(annotation, frames)),
  };
  constructor(private settings: DataSourceInstanceSettings<any>) {
    super(settings);
    this.interval = settings.jsonData.timeInterval;
  }
  query(request: DataQueryRequest<any>): Observable<DataQueryResponse> {
    return from(this.run(request));
  }
  private async run(request: DataQueryRequest<any>): Promise<DataQueryResponse> {
    const queries = request.targets
      .filter((t) => !t.hide && t.expr)
      .map((t) => ({
        ...t,
        expr: getTemplateSrv().replace(t.expr, request.scopedVars, format),
        interval: getTemplateSrv().replace(t.interval, request.scopedVars),
        intervalMs: request.intervalMs,
        maxDataPoints: request.maxDataPoints,
      }));
    const body = await (
      await fetch('/api/ds/query', {
        method: 'POST',
        body: JSON.stringify({
          queries,
          from: String(request.range.from.valueOf()),
          to: String(request.range.to.valueOf()),
        }),
      })
    ).json();
    const errors = Object.entries<any>(body.results)
      .filter(([, r]) => r.error)
      .map(([refId, r]) => ({ refId, message: r.error, status: r.status }));
    const tables = queries.filter((q) => q.format === 'table').length;
    const data = queries.flatMap((q) => {
      const fs = (body.results[q.refId]?.frames ?? [])
        .map((f: any) => dataFrameFromJSON(f))
        .filter((f: DataFrame) => f.fields.length);
      return q.format === 'table' ? table(fs, tables) : q.format === 'heatmap' ? heatmap(fs) : fs;
    });
    return { data, errors: errors.length ? errors : undefined };
  }
  async metricFindQuery(q: any, o?: any): Promise<MetricFindValue[]> {
    const text = getTemplateSrv().replace(typeof q === 'string' ? q : q.query, o?.scopedVars, format);
    const w = { start: String(o.range.from.unix()), end: String(o.range.to.unix()) };
    const api = async (path: string, p: Record<string, string>) => {
      const r = await fetch(`/api/datasources/uid/${this.uid}/resources/api/v1/${path}?${new URLSearchParams(p)}`);
      const j = await r.json();
      if (j.status !== 'success') throw new Error(`${text}: ${j.error}`);
      return j.data;
    };
    const sig = (m: any) => {
      const { __name__ = '', ...l } = m;
      return `${__name__}{${Object.entries(l)
        .map(([k, v]) => `${k}="${v}"`)
        .join(',')}}`;
    };
    let m: RegExpExecArray | null;
    const list = (x: string[]) => x.map((t) => ({ text: t }));
    if ((m = /^label_values\((?:([\s\S]+),\s*)?([a-zA-Z_]\w*)\)\s*$/.exec(text)))
      return list(await api(`label/${m[2]}/values`, { ...w, ...(m[1] ? { 'match[]': m[1] } : {}) }));
    if ((m = /^metrics\((.*)\)\s*$/.exec(text))) {
      const re = new RegExp(m[1]);
      return list((await api('label/__name__/values', w)).filter((x: string) => re.test(x)));
    }
    if (/^label_names\(/.test(text)) return list(await api('labels', w));
    if ((m = /^query_result\(([\s\S]+)\)\s*$/.exec(text)))
      return list(
        (await api('query', { query: m[1], time: w.end })).result.map(
          (x: any) => `${sig(x.metric)} ${x.value[1]} ${x.value[0] * 1000}`,
        ),
      );
    return list((await api('series', { ...w, 'match[]': text })).map(sig));
  }
  async testDatasource() {
    return { status: 'success', message: '' };
  }
}
