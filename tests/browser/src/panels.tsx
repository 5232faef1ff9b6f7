// Panel plugins: Grafana's own published visualisation components (@grafana/ui) behind the same option names.
// The core plugins' glue is not published, so this file re-makes it; state-timeline and heatmap are drawn here.
import React from 'react';
import {
  cacheFieldDisplayNames,
  DataFrame,
  DisplayValue,
  FieldType,
  FieldConfigProperty,
  getDisplayValueAlignmentFactors,
  getFieldDisplayName,
  getFieldDisplayValues,
  PanelPlugin,
  PanelProps,
  VizOrientation,
  getDisplayProcessor,
  formattedValueToString,
  getValueFormat,
} from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, VizRepeater, useTheme2 } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const NoData = ({ why }: { why: string }) => (
  <div data-harness="no-data" style={{ padding: 16, opacity: 0.7 }}>
    {why}
  </div>
);
const hasData = (s: DataFrame[]) => s.some((f) => f.fields.length && f.length);

const noValue = (config: any): string => config.defaults.noValue ?? 'No data';

function TimeSeriesPanel({ data, timeRange, timeZone, width, height, options, fieldConfig }: PanelProps<any>) {
  const frames = data.series.filter(
    (f) => f.fields.some((x) => x.type === FieldType.time) && f.fields.some((x) => x.type === FieldType.number),
  );
  if (!frames.length) return <NoData why={noValue(fieldConfig)} />;
  return (
    <TimeSeries
      frames={frames}
      structureRev={data.structureRev}
      timeRange={timeRange}
      timeZone={timeZone}
      width={width}
      height={height}
      legend={{ showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [], ...options.legend }}
      options={options}
    />
  );
}
function useDisplays(p: PanelProps<any>, sparkline = false) {
  const theme = useTheme2();
  return () =>
    getFieldDisplayValues({
      fieldConfig: p.fieldConfig,
      reduceOptions: p.options.reduceOptions,
      replaceVariables: p.replaceVariables,
      theme,
      data: p.data.series,
      sparkline,
      timeZone: p.timeZone,
    });
}
const orient = (o: any) => (o && o !== 'auto' ? o : VizOrientation.Auto);
function repeat(
  p: PanelProps<any>,
  getValues: () => any[],
  draw: (v: any, w: number, h: number, o: VizOrientation, count: number, af: any) => React.ReactNode,
  extra = {},
) {
  if (!hasData(p.data.series)) return <NoData why={noValue(p.fieldConfig)} />;
  return (
    <VizRepeater
      source={p.data}
      getValues={getValues}
      getAlignmentFactors={(vs: any[], w: number, h: number) => getDisplayValueAlignmentFactors(vs) as any}
      renderCounter={p.renderCounter}
      width={p.width}
      height={p.height}
      orientation={orient(p.options.orientation)}
      {...extra}
      renderValue={(r: any) => (
        <div
          data-harness-value={formattedValueToString(r.value.display)}
          data-harness-title={r.value.display.title}
          data-harness-color={r.value.display.color}
        >
          {draw(r.value, r.width, r.height, r.orientation, r.count, r.alignmentFactors)}
        </div>
      )}
    />
  );
}
function StatPanel(p: PanelProps<any>) {
  const theme = useTheme2();
  const o = p.options;
  const get = useDisplays(p, o.graphMode !== 'none');
  return repeat(
    p,
    get,
    (v, w, h, _o, count, af) => (
      <BigValue
        value={v.display}
        sparkline={v.sparkline}
        width={w}
        height={h}
        theme={theme}
        count={count}
        alignmentFactors={af}
        colorMode={o.colorMode}
        graphMode={o.graphMode}
        justifyMode={o.justifyMode}
        textMode={o.textMode}
        text={o.text}
        disableWideLayout={!o.wideLayout}
      />
    ),
    { autoGrid: true },
  ) as any;
}
/* @grafana/ui's Gauge draws through a jQuery flot plug-in kept inside Grafana's own repository (12.x; gone in 13), so: an arc here */
function GaugePanel(p: PanelProps<any>) {
  const theme = useTheme2();
  const o = p.options;
  const get = useDisplays(p);
  const arc = (cx: number, cy: number, r: number, a0: number, a1: number) => {
    const q = (a: number) => [cx + r * Math.cos(a), cy + r * Math.sin(a)];
    const [x0, y0] = q(a0),
      [x1, y1] = q(a1);
    return `M${x0} ${y0}A${r} ${r} 0 ${a1 - a0 > Math.PI ? 1 : 0} 1 ${x1} ${y1}`;
  };
  return repeat(
    p,
    get,
    (v, w, h) => {
      const r = Math.max(10, Math.min(w / 2, h / 1.5) - 16),
        cx = w / 2,
        cy = r + 14,
        A0 = Math.PI * 0.8,
        A1 = Math.PI * 2.2;
      const f = v.field,
        min = f.min ?? 0,
        max = f.max ?? 100;
      const at = (x: number) => A0 + (A1 - A0) * Math.min(1, Math.max(0, (x - min) / (max - min)));
      const st = (f.thresholds?.steps ?? []).map((x: any) => ({
        v: x.value === null || x.value === -Infinity ? min : x.value,
        c: theme.visualization.getColorByName(x.color),
      }));
      return (
        <svg width={w} height={h} style={{ fontSize: 12 }}>
          <path
            d={arc(cx, cy, r - 8, A0, A1)}
            stroke={theme.colors.background.secondary}
            strokeWidth={14}
            fill="none"
          />
          {v.display.numeric > min && (
            <path
              d={arc(cx, cy, r - 8, A0, at(v.display.numeric))}
              stroke={v.display.color}
              strokeWidth={14}
              fill="none"
            />
          )}
          {o.showThresholdMarkers &&
            st.map(
              (x: any, i: number) =>
                x.v < max && (
                  <path
                    key={i}
                    d={arc(cx, cy, r + 2, at(x.v), at(st[i + 1]?.v ?? max))}
                    stroke={x.c}
                    strokeWidth={3}
                    fill="none"
                  />
                ),
            )}
          <text x={cx} y={cy + 6} textAnchor="middle" fill={v.display.color} fontSize={r / 2.6}>
            {formattedValueToString(v.display)}
          </text>
          <text x={cx} y={h - 4} textAnchor="middle" fill={theme.colors.text.primary}>
            {v.display.title}
          </text>
        </svg>
      );
    },
    { autoGrid: true },
  ) as any;
}
function BarGaugePanel(p: PanelProps<any>) {
  const theme = useTheme2();
  const o = p.options;
  const get = useDisplays(p);
  return repeat(
    p,
    get,
    (v, w, h, or, _c, af) => (
      <BarGauge
        value={v.display}
        field={v.field}
        display={v.view?.getFieldDisplayProcessor?.(v.colIndex)}
        width={w}
        height={h}
        theme={theme}
        orientation={or}
        displayMode={o.displayMode}
        showUnfilled={o.showUnfilled}
        text={o.text}
        itemSpacing={8}
        alignmentFactors={af}
        valueDisplayMode={o.valueMode}
        namePlacement={o.namePlacement}
        isOverflow={false}
      />
    ),
    { itemSpacing: 8, minVizHeight: o.minVizHeight, minVizWidth: o.minVizWidth, maxVizHeight: o.maxVizHeight },
  ) as any;
}
function TablePanel({ data, width, height, options, fieldConfig, timeRange }: PanelProps<any>) {
  cacheFieldDisplayNames(data.series);
  const f = data.series[options.frameIndex ?? 0];
  if (!f || !f.fields.length || !f.length) return <NoData why={noValue(fieldConfig)} />;
  return (
    <TableNG
      data={f}
      width={width}
      height={height}
      noHeader={!options.showHeader}
      showTypeIcons={options.showTypeIcons}
      cellHeight={options.cellHeight}
      timeRange={timeRange}
      fieldConfig={fieldConfig}
      structureRev={data.structureRev}
      getActions={() => []}
      replaceVariables={(s: string) => s}
      disableSanitizeHtml={false}
      {...({} as any)}
    />
  );
}
/* not in @grafana/ui: drawn here from the same prepared fields (mappings, thresholds, colours, units) */
function StateTimelinePanel({ data, width, height, timeRange, options, fieldConfig }: PanelProps<any>) {
  const theme = useTheme2();
  const rows = data.series.flatMap((f) => {
    const t = f.fields.find((x) => x.type === FieldType.time);
    return t ? f.fields.filter((x) => x.type !== FieldType.time).map((x) => ({ f, t, x })) : [];
  });
  if (!rows.length) return <NoData why={noValue(fieldConfig)} />;
  const from = timeRange.from.valueOf(),
    to = timeRange.to.valueOf(),
    lw = 280,
    w = width - lw,
    rh = height / rows.length;
  return (
    <svg width={width} height={height} style={{ fontSize: 12 }}>
      {rows.map(({ f, t, x }, r) => {
        const segs: any[] = [];
        const n = x.values.length;
        for (let i = 0; i < n; i++) {
          const d = x.display!(x.values[i]);
          const last = segs.at(-1);
          if (last && last.text === d.text) last.to = t.values[i + 1] ?? to;
          else
            segs.push({
              from: t.values[i],
              to: t.values[i + 1] ?? to,
              text: formattedValueToString(d),
              color: d.color,
            });
        }
        return (
          <g key={r}>
            <text x={4} y={r * rh + rh / 2} fill={theme.colors.text.primary}>
              {getFieldDisplayName(x, f, data.series)}
            </text>
            {segs.map((s, i) => {
              const x0 = lw + ((s.from - from) / (to - from)) * w,
                x1 = lw + ((s.to - from) / (to - from)) * w;
              return (
                <g key={i} data-harness-value={s.text} data-harness-color={s.color}>
                  <rect
                    x={x0}
                    y={r * rh + rh * 0.05}
                    width={Math.max(1, x1 - x0)}
                    height={rh * 0.9}
                    fill={s.color}
                    opacity={0.7}
                  />
                  {x1 - x0 > 30 && (
                    <text x={x0 + 4} y={r * rh + rh / 2} fill="#fff">
                      {s.text}
                    </text>
                  )}
                </g>
              );
            })}
          </g>
        );
      })}
    </svg>
  );
}
function HeatmapPanel({ data, width, height, timeRange, fieldConfig }: PanelProps<any>) {
  const theme = useTheme2();
  // Prometheus' "heatmap" format, after the real transformV2: a time field and one field per bucket, de-cumulated
  const t = data.series[0]?.fields.find((x) => x.type === FieldType.time);
  const rows = data.series.flatMap((f) => f.fields.filter((x) => x.type === FieldType.number).map((x) => ({ f, x })));
  if (!t || !rows.length) return <NoData why={noValue(fieldConfig)} />;
  const max = Math.max(...rows.flatMap(({ x }) => x.values.map((v) => v ?? 0)), 1e-9),
    lw = 60,
    cw = (width - lw) / t.values.length,
    ch = height / rows.length;
  return (
    <svg width={width} height={height} style={{ fontSize: 11 }}>
      {rows.map(({ f, x }, r) => (
        <g key={r} data-harness-value={getFieldDisplayName(x, f, data.series)}>
          <text x={4} y={height - r * ch - ch / 3} fill={theme.colors.text.secondary}>
            {getFieldDisplayName(x, f, data.series)}
          </text>
          {x.values.map((v, i) => (
            <rect
              key={i}
              x={lw + i * cw}
              y={height - (r + 1) * ch}
              width={cw + 0.5}
              height={ch}
              fill={theme.visualization.getColorByName('orange')}
              opacity={(v ?? 0) / max}
            />
          ))}
        </g>
      ))}
    </svg>
  );
}
function TextPanel({ options }: PanelProps<any>) {
  return <div data-harness-value={options.content}>{options.content}</div>;
}

// custom field properties of the time series family, with Grafana's defaults (so overrides of custom.* apply)
const graphCustom: Record<string, any> = {
  drawStyle: 'line',
  lineInterpolation: 'linear',
  barAlignment: 0,
  barWidthFactor: 0.6,
  lineWidth: 1,
  fillOpacity: 0,
  gradientMode: 'none',
  spanNulls: false,
  insertNulls: false,
  showPoints: 'auto',
  showValues: false,
  pointSize: 5,
  stacking: { mode: 'none', group: 'A' },
  axisPlacement: 'auto',
  axisLabel: '',
  axisColorMode: 'text',
  axisBorderShow: false,
  scaleDistribution: { type: 'linear' },
  axisCenteredZero: false,
  hideFrom: { tooltip: false, viz: false, legend: false },
  thresholdsStyle: { mode: 'off' },
  lineStyle: { fill: 'solid' },
  transform: undefined,
  fillBelowTo: undefined,
  axisSoftMin: undefined,
  axisSoftMax: undefined,
  axisWidth: undefined,
  axisGridShow: undefined,
  lineColor: undefined,
  fillColor: undefined,
  pointColor: undefined,
  pointSymbol: undefined,
};
const tableCustom: Record<string, any> = {
  align: 'auto',
  cellOptions: { type: 'auto' },
  inspect: false,
  filterable: undefined,
  width: undefined,
  minWidth: undefined,
  hidden: undefined,
  footer: undefined,
  wrapText: undefined,
  wrapHeaderText: undefined,
};
const stateCustom: Record<string, any> = {
  lineWidth: 0,
  fillOpacity: 70,
  hideFrom: { tooltip: false, viz: false, legend: false },
  axisPlacement: 'auto',
  insertNulls: false,
  spanNulls: false,
};

function make(id: string, C: any, custom?: Record<string, any>, defaults?: any, std?: any) {
  const p = new PanelPlugin<any, any>(C).useFieldConfig({
    standardOptions: std,
    useCustomConfig: custom
      ? (b: any) => {
          for (const [k, v] of Object.entries(custom))
            b.addCustomEditor({
              id: k,
              path: k,
              name: k,
              defaultValue: v,
              editor: () => null,
              override: () => null,
              process: (x: any) => x,
              shouldApply: () => true,
            });
        }
      : undefined,
  } as any);
  if (defaults) p.setDefaults(defaults);
  p.meta = {
    id,
    name: id,
    module: 'harness',
    baseUrl: '',
    type: 'panel',
    sort: 1,
    info: {
      author: { name: '' },
      description: '',
      links: [],
      logos: { small: '', large: '' },
      screenshots: [],
      updated: '',
      version: '13.2.3',
    },
  } as any;
  return p;
}
const thresholdsColour = { [FieldConfigProperty.Color]: { defaultValue: { mode: 'thresholds' } } };
const reduce = { reduceOptions: { values: false, calcs: ['lastNotNull'], fields: '' }, orientation: 'auto' };
export const panelPlugins: Record<string, PanelPlugin> = {
  timeseries: make('timeseries', TimeSeriesPanel, graphCustom, {
    legend: { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] },
    tooltip: { mode: 'single', sort: 'none' },
  }),
  stat: make(
    'stat',
    StatPanel,
    undefined,
    { ...reduce, graphMode: 'area', colorMode: 'value', justifyMode: 'auto', textMode: 'auto', wideLayout: true },
    thresholdsColour,
  ),
  gauge: make(
    'gauge',
    GaugePanel,
    undefined,
    { ...reduce, showThresholdMarkers: true, showThresholdLabels: false },
    thresholdsColour,
  ),
  bargauge: make(
    'bargauge',
    BarGaugePanel,
    undefined,
    {
      ...reduce,
      displayMode: 'gradient',
      showUnfilled: true,
      valueMode: 'color',
      namePlacement: 'auto',
      minVizHeight: 16,
      minVizWidth: 8,
      maxVizHeight: 300,
    },
    thresholdsColour,
  ),
  table: make(
    'table',
    TablePanel,
    tableCustom,
    { frameIndex: 0, showHeader: true, showTypeIcons: false, cellHeight: 'sm' },
    thresholdsColour,
  ),
  'state-timeline': make(
    'state-timeline',
    StateTimelinePanel,
    stateCustom,
    {},
    { [FieldConfigProperty.Color]: { defaultValue: { mode: 'continuous-GrYlRd' } } },
  ),
  heatmap: make('heatmap', HeatmapPanel, { hideFrom: {}, scaleDistribution: { type: 'linear' } }),
  text: make('text', TextPanel),
};
