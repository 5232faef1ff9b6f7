// Panel plugins: Grafana's own published visualisation components (@grafana/ui) behind the same option names.
// The core plugins' glue is not published, so this file re-makes it; state-timeline and heatmap are drawn here.
import React, { useEffect, useLayoutEffect, useRef } from 'react';
import type uPlot from 'uplot';
import {
  cacheFieldDisplayNames,
  colorManipulator,
  dateTimeFormat,
  DataFrame,
  DisplayValue,
  Field,
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
import {
  BarGauge,
  BigValue,
  TimeSeries,
  UPlotConfigBuilder,
  VizRepeater,
  measureText,
  useTheme2,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const NoData = ({ why }: { why: string }) => (
  <div data-harness="no-data" style={{ padding: 16, opacity: 0.7 }}>
    {why}
  </div>
);
const hasData = (s: DataFrame[]) => s.some((f) => f.fields.length && f.length);

const noValue = (config: any): string => config.defaults.noValue ?? 'No data';

/* Core's plug-in that draws annotations is not published: here they are elements above the graph, regions or lines. */
function Annotations({ config, frames }: { config: UPlotConfigBuilder; frames: DataFrame[] }) {
  const theme = useTheme2();
  const latest = useRef(frames);
  const plot = useRef<uPlot>();
  latest.current = frames;
  const draw = (u: uPlot) => {
    // A graph whose values have no range has no line, whatever its legend says.
    u.root.dataset.harnessDrawn = String(
      Object.entries(u.scales).some(([name, scale]) => name !== 'x' && Number.isFinite(scale.min) && Number.isFinite(scale.max)),
    );
    u.over.querySelectorAll('[data-harness-annotation]').forEach((element) => element.remove());
    for (const frame of latest.current) {
      const of = (name: string) => frame.fields.find((field) => field.name === name)?.values ?? [];
      for (let i = 0; i < frame.length; i++) {
        const left = Math.max(0, u.valToPos(of('time')[i], 'x'));
        const right = Math.min(u.over.clientWidth, u.valToPos(of('timeEnd')[i] || of('time')[i], 'x'));
        if (right < 0 || left > u.over.clientWidth) continue;
        const color = theme.visualization.getColorByName(of('color')[i]);
        const element = document.createElement('div');
        element.dataset.harnessAnnotation = `${of('title')[i]}: ${of('text')[i]}`;
        element.title = element.dataset.harnessAnnotation;
        Object.assign(element.style, {
          position: 'absolute',
          left: `${left}px`,
          width: `${Math.max(2, right - left)}px`,
          top: '0',
          bottom: '0',
          background: colorManipulator.alpha(color, 0.08),
          borderLeft: `1px dashed ${color}`,
          borderBottom: `4px solid ${color}`,
          boxSizing: 'border-box',
        });
        u.over.appendChild(element);
      }
    }
  };
  useLayoutEffect(() => {
    config.addHook('init', (u) => (plot.current = u));
    config.addHook('draw', draw);
  }, [config]);
  useEffect(() => {
    if (plot.current) draw(plot.current);
  }, [frames]);
  return null;
}
function TimeSeriesPanel({ data, timeRange, timeZone, width, height, options, fieldConfig }: PanelProps<any>) {
  // Like core's plug-in: what is no finite number is a gap, and not the end of the axis.
  const finite = (x: Field) =>
    x.type === FieldType.number ? { ...x, values: x.values.map((v) => (Number.isFinite(v) ? v : null)) } : x;
  const frames = data.series
    .filter((f) => f.fields.some((x) => x.type === FieldType.time) && f.fields.some((x) => x.type === FieldType.number))
    .map((f) => ({ ...f, fields: f.fields.map(finite) }));
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
    >
      {(config: UPlotConfigBuilder) => <Annotations config={config} frames={data.annotations ?? []} />}
    </TimeSeries>
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
const AXIS = 22; // pixels below a graph for its times
function TimeAxis({ left, width, height, timeRange, timeZone }: any) {
  const theme = useTheme2();
  const from = timeRange.from.valueOf();
  const length = timeRange.to.valueOf() - from;
  const step = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800].find(
    (seconds) => (length / 1000 / seconds) * 100 <= width,
  )!;
  const format = length > 86_400_000 ? 'MM/DD HH:mm' : step < 60 ? 'HH:mm:ss' : 'HH:mm';
  const first = Math.ceil(from / 1000 / step) * step;
  const times = Array.from({ length: Math.ceil((from + length) / 1000 / step - first / step) }, (_, i) => first + i * step);
  return times.map((time) => (
    <text
      key={time}
      x={left + ((time * 1000 - from) / length) * width}
      y={height - 5}
      textAnchor="middle"
      fill={theme.colors.text.secondary}
    >
      {dateTimeFormat(time * 1000, { format, timeZone })}
    </text>
  ));
}
/* not in @grafana/ui: drawn here from the same prepared fields (mappings, thresholds, colours, units) */
function StateTimelinePanel({ data, width, height, timeRange, timeZone, options, fieldConfig }: PanelProps<any>) {
  const theme = useTheme2();
  const rows = data.series.flatMap((f) => {
    const t = f.fields.find((x) => x.type === FieldType.time);
    return t ? f.fields.filter((x) => x.type !== FieldType.time).map((x) => ({ f, t, x })) : [];
  });
  if (!rows.length) return <NoData why={noValue(fieldConfig)} />;
  const names = rows.map(({ f, x }) => getFieldDisplayName(x, f, data.series));
  const from = timeRange.from.valueOf(),
    to = timeRange.to.valueOf(),
    lw = Math.max(...names.map((name) => measureText(name, 12).width)) + 24,
    w = width - lw,
    legend = new Map(rows.flatMap(({ x }) => x.values.map((v: any) => x.display!(v)).map((d) => [d.text, d.color]))),
    below = AXIS + 20,
    rh = (height - below) / rows.length;
  return (
    <svg width={width} height={height} style={{ fontSize: 12 }}>
      <TimeAxis left={lw} width={w} height={height - 20} timeRange={timeRange} timeZone={timeZone} />
      {[...legend].map(([text, color], i) => (
        <g key={text} transform={`translate(${4 + i * 140}, ${height - 14})`}>
          <rect width={12} height={4} y={4} fill={color} />
          <text x={18} y={10} fill={theme.colors.text.primary}>
            {text}
          </text>
        </g>
      ))}
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
              {names[r]}
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
                  {options.showValue !== 'never' && x1 - x0 > 30 && (
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
function HeatmapPanel({ data, width, height, timeRange, timeZone, options, fieldConfig }: PanelProps<any>) {
  const theme = useTheme2();
  // Prometheus' "heatmap" format, after the real transformV2: a time field and one field per bucket, de-cumulated
  const t = data.series[0]?.fields.find((x) => x.type === FieldType.time);
  const rows = data.series.flatMap((f) => f.fields.filter((x) => x.type === FieldType.number).map((x) => ({ f, x })));
  if (!t || !rows.length) return <NoData why={noValue(fieldConfig)} />;
  // Like Grafana's, which formats the bounds by the unit of the axis where they are numbers
  const unit = getValueFormat(options.yAxis?.unit ?? 'short');
  const names = rows.map(({ f, x }) => {
    const name = getFieldDisplayName(x, f, data.series);
    return Number.isNaN(Number(name)) ? name : formattedValueToString(unit(Number(name), options.yAxis?.decimals));
  });
  const from = timeRange.from.valueOf(),
    to = timeRange.to.valueOf(),
    max = Math.max(...rows.flatMap(({ x }) => x.values.map((v) => v ?? 0)), 1e-9),
    lw = Math.max(...names.map((name) => measureText(name, 11).width)) + 12,
    step = t.config.interval ?? (t.values[1] ?? to) - t.values[0],
    cw = (step / (to - from)) * (width - lw),
    ch = (height - AXIS) / rows.length;
  return (
    <svg width={width} height={height} style={{ fontSize: 11 }}>
      <TimeAxis left={lw} width={width - lw} height={height} timeRange={timeRange} timeZone={timeZone} />
      {rows.map(({ x }, r) => (
        <g key={r} data-harness-value={names[r]}>
          <text x={4} y={height - AXIS - r * ch - ch / 3} fill={theme.colors.text.secondary}>
            {names[r]}
          </text>
          {x.values.map((v, i) => (
            <rect
              key={i}
              x={lw + ((t.values[i] - from) / (to - from)) * (width - lw)}
              y={height - AXIS - (r + 1) * ch}
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
  p.setDataSupport({ annotations: id === 'timeseries', alertStates: false });
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
