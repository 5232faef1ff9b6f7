// Checks dashboard JSON (classic v1 model) against Grafana's own generated TypeScript types
// (npm @grafana/schema): the dashboard, and each panel's options / custom field config by panel type.
// usage: node check_schema.mjs a.json b.json
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

const here = path.dirname(new URL(import.meta.url).pathname);
const pkg = JSON.parse(fs.readFileSync(path.join(here, 'node_modules/@grafana/schema/package.json')));
// panel type -> generated module, read from the package's own export map (no list kept by hand)
const mods = {};
for (const key of Object.keys(pkg.exports)) {
  const m = key.match(/^\.\/(dist\/esm\/raw\/composable\/([^/]+)\/panelcfg\/x\/\w+_types\.gen)$/);
  if (m) mods[m[2]] = '@grafana/schema/' + m[1];
}
const dirOf = { 'state-timeline': 'statetimeline', 'status-history': 'statushistory' };

function source(dash, used) {
  const out = [`import type { Dashboard, RowPanel, Panel } from '@grafana/schema';`];
  for (const t of used) out.push(`import type * as ${t} from '${mods[t]}';`);
  out.push(`
type Json<T> = T extends string ? \`\${T}\` : T extends Array<infer U> ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
type Opt<M> = M extends { Options: infer O } ? O : never;
type Typed<TType extends string, O, F> = Omit<Json<Panel>, 'type' | 'options' | 'fieldConfig'> & {
  type: TType; options?: Partial<Json<O>>;
  fieldConfig?: { defaults: Omit<NonNullable<Json<NonNullable<Panel['fieldConfig']>['defaults']>>, 'custom'> & { custom?: Partial<Json<F>> };
                  overrides: NonNullable<Json<Panel['fieldConfig']>>['overrides'] } };
`);
  return out;
}
const typeFor = (p) => {
  if (p.type === 'row') return 'Json<RowPanel>';
  const dir = dirOf[p.type] ?? p.type;
  if (!mods[dir]) return null;
  const hasF = /export interface FieldConfig\b/.test(
    fs.readFileSync(
      path.join(here, 'node_modules/@grafana/schema/dist/types/raw/composable', dir, 'panelcfg/x/types.gen.d.ts'),
      'utf8',
    ),
  );
  return `Typed<'${p.type}', ${dir}.Options, ${hasF ? `${dir}.FieldConfig` : 'Record<string, never>'}>`;
};

const files = process.argv.slice(2);
const virtual = new Map();
const problems = [];
const inject = (v, at = '') => v;
for (const f of files) {
  const dash = JSON.parse(fs.readFileSync(f, 'utf8'));
  // Grafana writes `definition` on query variables, its published v1 type does not have it
  for (const v of dash.templating?.list ?? []) if (v.type === 'query') delete v.definition;
  // Nor has it what each data source adds to its annotations
  for (const a of dash.annotations?.list ?? []) {
    a.target = { refId: a.target?.refId };
    for (const name of ['expr', 'step', 'titleFormat', 'textFormat']) delete a[name];
  }
  const flat = [];
  for (const p of dash.panels ?? []) {
    flat.push(p);
    for (const c of p.panels ?? []) flat.push(c);
  }
  const used = new Set(flat.map((p) => dirOf[p.type] ?? p.type).filter((t) => mods[t]));
  for (const p of flat)
    if (p.type !== 'row' && !typeFor(p)) problems.push(`${f}: panel "${p.title}": no such core panel type "${p.type}"`);
  const lines = source(dash, used);
  const { panels, ...rest } = dash;
  lines.push(`export const dashboard: Json<Omit<Dashboard, 'panels'>> = ${JSON.stringify(rest, null, 1)};`);
  flat.forEach((p, i) => {
    const t = typeFor(p);
    if (t)
      lines.push(
        `/* panel ${i}: ${String(p.title).replace(/\*\//g, '')} */\nexport const panel_${i}: ${t} = ${JSON.stringify(p, null, 1)};`,
      );
  });
  virtual.set(path.join(here, `__check_${virtual.size}.ts`), { text: lines.join('\n'), file: f, flat });
}
const options = {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  types: [],
};
const host = ts.createCompilerHost(options);
const base = { ...host };
host.fileExists = (n) => virtual.has(n) || base.fileExists(n);
host.readFile = (n) => virtual.get(n)?.text ?? base.readFile(n);
host.getSourceFile = (n, l, ...r) =>
  virtual.has(n) ? ts.createSourceFile(n, virtual.get(n).text, l) : base.getSourceFile(n, l, ...r);
const program = ts.createProgram([...virtual.keys()], options, host);
for (const d of ts.getPreEmitDiagnostics(program)) {
  const v = d.file && virtual.get(d.file.fileName);
  const where = v
    ? (() => {
        const upto = v.text.slice(0, d.start);
        const m = [...upto.matchAll(/export const (panel_(\d+)|dashboard)/g)].pop();
        const line = v.text.split('\n')[d.file.getLineAndCharacterOfPosition(d.start).line].trim();
        return `${v.file}: ${m?.[2] !== undefined ? `panel "${v.flat[m[2]].title}"` : 'dashboard'}: near ${line}`;
      })()
    : d.file?.fileName;
  problems.push(
    `${where}\n    ${ts.flattenDiagnosticMessageText(d.messageText, '\n    ').split('\n').slice(-1)[0].trim()}`,
  );
}
for (const p of problems) console.log(p);
console.log(`@grafana/schema ${pkg.version}: ${files.length} dashboard(s), ${problems.length} problem(s)`);
process.exit(problems.length ? 1 : 0);
