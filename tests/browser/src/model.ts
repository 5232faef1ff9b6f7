// classic dashboard JSON -> scene objects (what core's transformSaveModelToScene does; that code is not published)
import { DashboardLinks } from './links';
import {
  ConstantVariable,
  CustomVariable,
  DataSourceVariable,
  EmbeddedScene,
  IntervalVariable,
  QueryVariable,
  SceneControlsSpacer,
  SceneDataLayerControls,
  SceneDataLayerSet,
  SceneDataTransformer,
  SceneGridItem,
  SceneGridLayout,
  SceneGridRow,
  SceneQueryRunner,
  SceneReactObject,
  SceneRefreshPicker,
  SceneTimePicker,
  SceneTimeRange,
  SceneVariableSet,
  TextBoxVariable,
  VariableValueSelectors,
  VizPanel,
  SceneVariable,
  behaviors,
  dataLayers,
} from '@grafana/scenes';

function variable(v: any): SceneVariable {
  const common = { name: v.name, label: v.label, description: v.description, hide: v.hide, skipUrlSync: v.skipUrlSync };
  const multi = {
    isMulti: v.multi,
    includeAll: v.includeAll,
    allValue: v.allValue || undefined,
    defaultToAll: Boolean(v.includeAll),
    value: v.current?.value ?? '',
    text: v.current?.text ?? '',
  };
  switch (v.type) {
    case 'datasource':
      return new DataSourceVariable({ ...common, ...multi, pluginId: v.query, regex: v.regex ?? '' });
    case 'query':
      return new QueryVariable({
        ...common,
        ...multi,
        datasource: v.datasource,
        query: v.query,
        regex: v.regex ?? '',
        refresh: v.refresh,
        sort: v.sort,
        definition: v.definition,
      });
    case 'custom':
      return new CustomVariable({ ...common, ...multi, query: v.query });
    case 'constant':
      return new ConstantVariable({ ...common, value: v.query });
    case 'textbox':
      return new TextBoxVariable({ ...common, value: v.current?.value ?? v.query ?? '' });
    case 'interval':
      return new IntervalVariable({
        ...common,
        value: v.current?.value,
        intervals: String(v.query).split(','),
        autoEnabled: v.auto,
        autoMinInterval: v.auto_min,
        autoStepCount: v.auto_count,
      });
    default:
      throw new Error(`variable "${v.name}" has type "${v.type}", which this harness does not know`);
  }
}
export const panelKey = (i: number, p: any) => `panel-${i}-${String(p.title).replace(/\W+/g, '_')}`;
let n = 0;
function item(p: any): SceneGridItem {
  const runner = new SceneQueryRunner({
    queries: p.targets ?? [],
    datasource: p.datasource,
    maxDataPoints: p.maxDataPoints,
    minInterval: p.interval,
    maxDataPointsFromWidth: true,
  });
  const viz = new VizPanel({
    key: panelKey(n++, p),
    title: p.title,
    description: p.description,
    pluginId: p.type,
    pluginVersion: p.pluginVersion,
    options: p.options ?? {},
    fieldConfig: p.fieldConfig ?? { defaults: {}, overrides: [] },
    displayMode: p.transparent ? 'transparent' : undefined,
    $data: p.targets?.length
      ? new SceneDataTransformer({ $data: runner, transformations: p.transformations ?? [] })
      : undefined,
  });
  const g = p.gridPos;
  return new SceneGridItem({ key: `grid-${n}`, x: g.x, y: g.y, width: g.w, height: g.h, body: viz });
}
export function toScene(d: any): EmbeddedScene {
  const children: any[] = [];
  let row: SceneGridRow | undefined;
  let rowItems: any[] = [];
  const close = () => {
    if (row) {
      row.setState({ children: rowItems });
      children.push(row);
    }
    row = undefined;
    rowItems = [];
  };
  for (const p of d.panels ?? []) {
    if (p.type === 'row') {
      close();
      row = new SceneGridRow({
        key: `row-${n++}`,
        title: p.title,
        y: p.gridPos.y,
        isCollapsed: false,
        isCollapsible: true,
      });
      if (p.panels?.length) rowItems = p.panels.map(item);
    } else (row ? rowItems : children).push(item(p));
  }
  close();
  const links = new SceneReactObject({ component: DashboardLinks, props: { links: d.links ?? [] } });
  const layers = (d.annotations?.list ?? []).map(
    (a: any) =>
      new dataLayers.AnnotationsDataLayer({
        key: `annotations-${a.name}`,
        name: a.name,
        query: a,
        isEnabled: Boolean(a.enable),
        isHidden: Boolean(a.hide),
      }),
  );
  return new EmbeddedScene({
    $data: new SceneDataLayerSet({ layers }),
    $timeRange: new SceneTimeRange({
      from: d.time?.from ?? 'now-1h',
      to: d.time?.to ?? 'now',
      timeZone: d.timezone,
    }),
    $variables: new SceneVariableSet({ variables: (d.templating?.list ?? []).map(variable) }),
    $behaviors: [new behaviors.CursorSync({ sync: d.graphTooltip ?? 0, key: 'sync' })],
    controls: [
      new VariableValueSelectors({}),
      ...(layers.length ? [new SceneDataLayerControls()] : []),
      new SceneControlsSpacer(),
      links,
      new SceneTimePicker({ isOnCanvas: true }),
      new SceneRefreshPicker({ isOnCanvas: true }),
    ],
    body: new SceneGridLayout({ isLazy: false, isDraggable: false, isResizable: false, children }),
  });
}
