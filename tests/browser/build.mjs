import { build } from 'esbuild';
const t = Date.now();
// @grafana/ui carries react-router-dom 5 for its Link; npm (without peer resolution) hoists the compat package away from it
const router5 = {
  name: 'router5',
  setup(b) {
    b.onResolve({ filter: /^react-router-dom$/ }, (a) =>
      a.importer.includes('react-router-dom-v5-compat') && !a.pluginData?.seen
        ? b.resolve('react-router-dom', {
            kind: a.kind,
            resolveDir: process.cwd() + '/node_modules/@grafana/ui/dist/esm',
            pluginData: { seen: true },
          })
        : undefined,
    );
  },
};
const r = await build({
  entryPoints: { main: 'src/main.tsx' },
  outdir: 'dist',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'browser',
  target: 'chrome120',
  jsx: 'automatic',
  minify: true,
  metafile: true,
  logLevel: 'warning',
  mainFields: ['module', 'browser', 'main'],
  plugins: [router5],
  conditions: ['import', 'module', 'browser'],
  define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis', 'process.env': '{}' },
  loader: {
    '.svg': 'dataurl',
    '.png': 'dataurl',
    '.woff': 'dataurl',
    '.woff2': 'dataurl',
    '.ttf': 'dataurl',
    '.eot': 'dataurl',
    '.gif': 'dataurl',
  },
});
const out = Object.entries(r.metafile.outputs);
console.log(
  `built ${out.length} files, ${(out.reduce((a, [, o]) => a + o.bytes, 0) / 1e6).toFixed(1)} MB, ${Date.now() - t} ms`,
);
