import React from 'react';
import { createRoot } from 'react-dom/client';
import { MemoryRouter } from 'react-router-dom';
import {
  LoadingState,
  ThemeContext,
  getFieldDisplayName,
  formattedValueToString,
  getValueFormats,
  fieldReducers,
  fieldMatchers,
  frameMatchers,
  valueMatchers,
  standardTransformersRegistry,
  fieldColorModeRegistry,
  DataTransformerID,
} from '@grafana/data';
import { panelPlugins } from './panels';
import { GlobalStyles, PortalContainer } from '@grafana/ui';
import { initPluginTranslations } from '@grafana/i18n';
import { SceneReactObject, VizPanel, dataLayers, sceneGraph, sceneUtils } from '@grafana/scenes';
import { initRuntime } from './runtime';
import { toScene } from './model';

// every id the dashboard names must exist in Grafana's own registries (Grafana itself skips most unknown ids silently)
const TRANSFORMS = new Set<string>(Object.values(DataTransformerID));
function idProblems(dash: any, theme: any): string[] {
  const out: string[] = [];
  const units = new Set(getValueFormats().flatMap((c) => c.submenu.map((u: any) => u.value)));
  const named = new Set(
    theme.visualization.hues.flatMap((h: any) => h.shades.flatMap((x: any) => [x.name, ...(x.aliases ?? [])])),
  );
  const colour = (w: string, c: any) => {
    if (
      typeof c === 'string' &&
      !/^(#|rgb|hsl|transparent$|text$|panel-bg$|semi-dark-|light-|super-light-|dark-)/.test(c) &&
      !named.has(c)
    )
      out.push(`${w}: no colour "${c}"`);
  };
  const unit = (w: string, u: any) => {
    if (u !== undefined && !units.has(u) && !/^(suffix|prefix|time|si|count|currency|bool):/.test(u))
      out.push(`${w}: no unit "${u}"`);
  };
  const props = (w: string, plugin: any, id: string, value: any) => {
    if (plugin && !plugin.fieldConfigRegistry.getIfExists(id)) out.push(`${w}: no field property "${id}"`);
    if (id === 'unit') unit(w, value);
    if (id === 'color') {
      if (value?.mode && !fieldColorModeRegistry.getIfExists(value.mode))
        out.push(`${w}: no colour mode "${value.mode}"`);
      colour(w, value?.fixedColor);
    }
    if (id === 'thresholds') for (const s of value?.steps ?? []) colour(w, s.color);
    if (id === 'mappings')
      for (const m of value ?? [])
        for (const r of m.type === 'value' ? (Object.values(m.options) as any[]) : [m.options?.result])
          colour(w, r?.color);
  };
  const all = (dash.panels ?? []).flatMap((p: any) => [p, ...(p.panels ?? [])]);
  for (const p of all) {
    if (p.type === 'row') continue;
    const w = `"${p.title}"`;
    const plugin = panelPlugins[p.type];
    const fc = p.fieldConfig ?? {};
    for (const [k, v] of Object.entries(fc.defaults ?? {})) {
      if (k === 'custom') {
        for (const c of Object.keys(v as any))
          if (plugin && !plugin.fieldConfigRegistry.getIfExists(`custom.${c}`))
            out.push(`${w}: no field property "custom.${c}"`);
      } else if (!['displayNameFromDS', 'description', 'writeable', 'path', 'interval', 'actions'].includes(k))
        props(w, plugin, k, v);
    }
    for (const o of fc.overrides ?? []) {
      if (!fieldMatchers.getIfExists(o.matcher?.id)) out.push(`${w}: no field matcher "${o.matcher?.id}"`);
      for (const q of o.properties ?? []) props(w, plugin, q.id, q.value);
    }
    for (const t of p.transformations ?? [])
      if (!standardTransformersRegistry.getIfExists(t.id) && !TRANSFORMS.has(t.id))
        out.push(`${w}: no transformation "${t.id}"`);
    for (const c of [...(p.options?.reduceOptions?.calcs ?? []), ...(p.options?.legend?.calcs ?? [])])
      if (!fieldReducers.getIfExists(c)) out.push(`${w}: no calculation "${c}"`);
  }
  return out;
}

async function main() {
  await initPluginTranslations('harness', []);
  const theme = initRuntime();
  const dash = await (await fetch(`/dashboards/${location.pathname.split('/').slice(2).join('/')}.json`)).json();
  (window as any).__idProblems = idProblems(dash, theme);
  const scene = toScene(dash);
  scene.state.controls?.forEach((control) => {
    if (control instanceof SceneReactObject) control.setState({ props: { ...control.state.props, scene } });
  });
  sceneUtils.syncStateFromSearchParams(scene, new URLSearchParams(location.search));
  const w = window as any;
  w.__scene = scene;
  // what the checks read
  w.__panels = () =>
    (sceneGraph.findAllObjects(scene, (o) => o instanceof VizPanel) as VizPanel[]).map((p) => {
      const raw = sceneGraph.getData(p).state.data;
      const data = raw ? p.applyFieldConfig(raw) : undefined;
      return {
        title: sceneGraph.interpolate(p, p.state.title),
        type: p.state.pluginId,
        loadError: p.state._pluginLoadError,
        state: raw?.state ?? 'none',
        annotations: (raw?.annotations ?? []).reduce((count, frame) => count + frame.length, 0),
        error: raw?.errors?.map((e) => e.message).join('; ') || raw?.error?.message,
        fields: (data?.series ?? []).flatMap((f) =>
          f.fields
            .filter((x) => x.type !== 'time')
            .map((x) => {
              const v = x.values[x.values.length - 1];
              const d = x.display?.(v);
              return {
                name: getFieldDisplayName(x, f, data!.series),
                points: x.values.length,
                last: d ? formattedValueToString(d) : String(v),
                color: d?.color,
                unit: x.config.unit,
                customKeys: Object.keys(x.config.custom ?? {}),
              };
            }),
        ),
      };
    });
  w.__vars = () =>
    (scene.state.$variables?.state.variables ?? []).map((v: any) => ({
      name: v.state.name,
      label: v.state.label,
      value: String(v.getValue()),
      options: v.state.options?.map((o: any) => o.value),
      error: v.state.error,
      loading: v.state.loading,
    }));
  w.__setVar = (n: string, v: any) => (sceneGraph.lookupVariable(n, scene) as any).changeValueTo(v);
  w.__settled = () => {
    const ps = w.__panels();
    return (
      ps.length > 0 &&
      !w.__vars().some((v: any) => v.loading) &&
      sceneGraph
        .findAllObjects(scene, (o) => o instanceof dataLayers.AnnotationsDataLayer)
        .every((layer: any) => !layer.state.isEnabled || layer.state.data?.state === LoadingState.Done) &&
      ps.every((p: any) => p.state === LoadingState.Done || p.state === LoadingState.Error || p.type === 'text')
    );
  };
  createRoot(document.getElementById('root')!).render(
    <ThemeContext.Provider value={theme}>
      <MemoryRouter>
        <GlobalStyles />
        <div style={{ padding: 16, minHeight: '100vh', display: 'flex', background: theme.colors.background.canvas }}>
          <scene.Component model={scene} />
        </div>
        <PortalContainer />
      </MemoryRouter>
    </ThemeContext.Provider>,
  );
}
main().catch((e) => {
  (window as any).__fatal = String(e?.stack ?? e);
  console.error(e);
});
