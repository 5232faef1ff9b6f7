// The services that Grafana's core sets up at start-up and the published packages expect.
import { lastValueFrom, from, of, Observable } from 'rxjs';
import { catchError, map, startWith } from 'rxjs/operators';
import {
  createTheme,
  DataQueryRequest,
  DataSourceApi,
  EventBusSrv,
  LoadingState,
  PanelData,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  TransformerRegistryItem,
  FieldType,
  identityOverrideProcessor,
  unitOverrideProcessor,
  displayNameOverrideProcessor,
  thresholdsOverrideProcessor,
  valueMappingsOverrideProcessor,
  dataLinksOverrideProcessor,
  ThresholdsMode,
  FieldColorModeId,
} from '@grafana/data';
import {
  config,
  setAppEvents,
  setBackendSrv,
  setDataSourceSrv,
  setEchoSrv,
  setPluginImportUtils,
  setRunRequest,
  setTemplateSrv,
  toDataQueryError,
} from '@grafana/runtime';
import { sceneGraph } from '@grafana/scenes';
import { PrometheusDatasource } from './datasource';
import { panelPlugins } from './panels';

export const appEvents = new EventBusSrv();

function backendFetch(o: any): Observable<any> {
  const qs =
    o.params && Object.keys(o.params).length
      ? (o.url.includes('?') ? '&' : '?') + new URLSearchParams(o.params as any)
      : '';
  return from(
    (async () => {
      const form = typeof o.data === 'string';
      const r = await fetch(o.url + qs, {
        method: o.method ?? 'GET',
        headers: {
          'content-type': form ? 'application/x-www-form-urlencoded' : 'application/json',
          ...(o.headers ?? {}),
        },
        body: o.data === undefined ? undefined : form ? o.data : JSON.stringify(o.data),
      });
      const data = await r.json().catch(() => ({}));
      if (!r.ok) throw { status: r.status, statusText: r.statusText, data, config: o };
      return { data, status: r.status, statusText: r.statusText, ok: true, headers: r.headers, config: o };
    })(),
  );
}

const std = (id: string, path: string, process: any, defaultValue?: any) => ({
  id,
  path,
  name: id,
  process,
  defaultValue,
  editor: () => null,
  override: () => null,
  shouldApply: () => true,
  settings: {},
  getItemsCount: () => 0,
});

export function initRuntime(dsName = 'Prometheus', dsUid = 'prom', timeInterval = '1s') {
  const mode = new URLSearchParams(location.search).get('theme') === 'light' ? 'light' : 'dark';
  document.body.className = `theme-${mode}`;
  const theme = createTheme({ colors: { mode } });
  (config as any).theme2 = theme;
  (config as any).theme = theme.v1;
  config.bootData ??= {
    user: { orgRole: 'Viewer', timezone: 'browser', locale: 'en', theme: mode } as any,
    navTree: [],
    settings: config as any,
  } as any;
  setAppEvents(appEvents);
  setEchoSrv({ addEvent() {}, addBackend() {}, flush() {} } as any);
  setBackendSrv({
    fetch: backendFetch,
    get: (url: string, params?: any) => lastValueFrom(backendFetch({ url, params })).then((r: any) => r.data),
    datasourceRequest: (o: any) => lastValueFrom(backendFetch(o)),
  } as any);

  // exactly what core's TemplateSrv does when a scene object is in the scoped variables
  setTemplateSrv({
    replace: (t: string, sv: any, f: any) =>
      !t
        ? (t ?? '')
        : sv?.__sceneObject
          ? sceneGraph.interpolate(sv.__sceneObject.value.valueOf(), t, sv, f)
          : t.replace(/\$\{?(\w+)\}?/g, (m, n) => (sv?.[n] ? String(sv[n].value) : m)),
    getVariables: () => [],
    containsTemplate: (t: string) => /\$\{?\w+/.test(t ?? ''),
    updateTimeRange() {},
    getAdhocFilters: () => [],
  } as any);

  standardTransformersRegistry.setInit(() =>
    [...new Map(Object.values(standardTransformers).map((t: any) => [t.id, t])).values()].map(
      (t: any): TransformerRegistryItem<any> => ({
        id: t.id,
        name: t.name,
        description: t.description,
        transformation: (() => Promise.resolve(t)) as any,
        editor: () => null as any,
        imageDark: '',
        imageLight: '',
      }),
    ),
  );
  standardFieldConfigEditorRegistry.setInit(
    () =>
      [
        std('displayName', 'displayName', displayNameOverrideProcessor),
        std('unit', 'unit', unitOverrideProcessor),
        std('min', 'min', identityOverrideProcessor),
        std('max', 'max', identityOverrideProcessor),
        std('decimals', 'decimals', identityOverrideProcessor),
        std('noValue', 'noValue', identityOverrideProcessor),
        std('fieldMinMax', 'fieldMinMax', identityOverrideProcessor),
        std('thresholds', 'thresholds', thresholdsOverrideProcessor, {
          mode: ThresholdsMode.Absolute,
          steps: [
            { value: -Infinity, color: 'green' },
            { value: 80, color: 'red' },
          ],
        }),
        std('mappings', 'mappings', valueMappingsOverrideProcessor, []),
        std('links', 'links', dataLinksOverrideProcessor),
        std('color', 'color', identityOverrideProcessor, { mode: FieldColorModeId.PaletteClassic }),
        std('filterable', 'filterable', identityOverrideProcessor),
      ] as any,
  );

  const settings: any = {
    id: 1,
    uid: dsUid,
    name: dsName,
    type: 'prometheus',
    access: 'proxy',
    url: `/api/datasources/proxy/uid/${dsUid}`,
    isDefault: true,
    readOnly: true,
    jsonData: { timeInterval, httpMethod: 'POST', disableRecordingRules: true },
    meta: {
      id: 'prometheus',
      name: 'Prometheus',
      type: 'datasource',
      metrics: true,
      info: { logos: { small: '', large: '' } },
    },
  };
  const ds = new PrometheusDatasource(settings);
  (ds as any).meta = settings.meta;
  const resolve = (ref: any, sv?: any) => {
    let uid = typeof ref === 'string' ? ref : ref?.uid;
    if (uid && sv?.__sceneObject) uid = sceneGraph.interpolate(sv.__sceneObject.value.valueOf(), uid, sv);
    return !uid || uid === dsUid || uid === dsName || uid === 'default'
      ? { ...settings, rawRef: { type: 'prometheus', uid: dsUid } }
      : undefined;
  };
  setDataSourceSrv({
    get: async (ref: any, sv: any) => {
      if (resolve(ref, sv)) return ds;
      throw new Error(`Datasource ${JSON.stringify(ref)} was not found`);
    },
    getInstanceSettings: resolve,
    getList: (f: any) => (!f?.pluginId || f.pluginId === 'prometheus' ? [settings] : []),
    reload() {},
  } as any);

  setRunRequest(((d: DataSourceApi, request: DataQueryRequest, queryFn?: any): Observable<PanelData> => {
    const base: PanelData = { state: LoadingState.Loading, series: [], request, timeRange: request.range };
    if (!request.targets?.length) return of({ ...base, state: LoadingState.Done });
    const out = queryFn ? queryFn(request) : d.query(request);
    return (from(out as any) as Observable<any>).pipe(
      map((p) => ({
        ...base,
        state: p.state ?? (p.error || p.errors?.length ? LoadingState.Error : LoadingState.Done),
        series: p.data ?? [],
        error: p.error ?? p.errors?.[0],
        errors: p.errors,
      })),
      catchError((e) => of({ ...base, state: LoadingState.Error, error: toDataQueryError(e) })),
      startWith(base),
    );
  }) as any);

  setPluginImportUtils({
    importPanelPlugin: async (id: string) => {
      const p = panelPlugins[id];
      if (!p) throw new Error(`no panel plugin "${id}"`);
      return p;
    },
    getPanelPluginFromCache: (id: string) => panelPlugins[id],
  } as any);
  return theme;
}
