// Renders dashboards in Chromium with Grafana's published packages and prints, as JSON, what a person would see.
// usage: node check.mjs --prom URL --dashboards DIR --out DIR [--from now-10m] name...
import { chromium } from 'playwright-core';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { start } from './server.mjs';

const { values: flags, positionals: names } = parseArgs({
  allowPositionals: true,
  options: {
    prom: { type: 'string' },
    dashboards: { type: 'string' },
    out: { type: 'string' },
    from: { type: 'string', default: 'now-10m' },
  },
});
const SIZES = [
  [1440, 900],
  [1920, 1080],
];
const THEMES = ['dark', 'light'];
const server = await start({ prom: flags.prom, dashboards: flags.dashboards });
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});

const settled = (page) =>
  page.waitForFunction(() => window.__fatal || window.__settled?.(), null, { timeout: 60000, polling: 100 });
// Two frames after the data has come the panels are drawn; a resize is drawn when the grid has its new width.
const drawn = (page) =>
  page.evaluate(
    () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 250)))),
  );

async function open(name, theme, size) {
  const page = await browser.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error.message ?? error).slice(0, 300)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !/Failed to load resource/.test(message.text()))
      errors.push(message.text().slice(0, 300));
  });
  page.on('request', (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(server.url))
      errors.push(`request to ${request.url()}`);
  });
  await page.setViewportSize({ width: size[0], height: size[1] });
  await page.goto(`${server.url}/?d=${encodeURIComponent(name)}&theme=${theme}&from=${flags.from}`);
  await settled(page);
  await drawn(page);
  return { page, errors };
}

// What is drawn of each panel: its text, and the texts that do not fit where they are.
const read = (page) =>
  page.evaluate(() => {
    const sections = [
      ...document.querySelectorAll('section[data-testid*="Panel header"], [data-testid^="data-testid Panel header"]'),
    ];
    const shown = {};
    for (const section of sections) {
      const title = section.getAttribute('data-testid').replace(/^data-testid Panel header /, '');
      const box = section.getBoundingClientRect();
      const cut = [];
      for (const element of section.querySelectorAll('*')) {
        const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
        if (own && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0)
          cut.push(element.textContent.trim());
      }
      shown[title] = {
        text: section.innerText,
        cut,
        left: box.left,
        right: box.right,
        height: box.height,
        links: [...section.querySelectorAll('a[href]')].map((a) => a.getAttribute('href')),
      };
    }
    return {
      shown,
      fatal: window.__fatal,
      panels: window.__panels(),
      variables: window.__vars(),
      ids: window.__idProblems,
      width: document.documentElement.scrollWidth,
      height: document.documentElement.scrollHeight,
    };
  });

async function picture(page, name) {
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  const { width } = page.viewportSize();
  await page.setViewportSize({ width, height });
  await drawn(page);
  await page.screenshot({ path: path.join(flags.out, `${name}.png`) });
}

// A person chooses a source: which queries go out then?
async function choose(page, variable, option) {
  const input = page
    .getByTestId('data-testid template variable')
    .filter({ has: page.getByText(variable, { exact: true }) })
    .locator('input')
    .first();
  await input.click();
  const before = server.log.length;
  await page.locator('[role=option]', { hasText: option }).first().click();
  await page.keyboard.press('Escape');
  await page.mouse.click(5, 400);
  await page.waitForFunction(
    ([name, value]) => window.__vars().find((v) => v.name === name).value === value,
    [variable.toLowerCase(), option],
    { timeout: 10000 },
  );
  await settled(page);
  return server.log.slice(before).map((query) => query.expr);
}

const result = { pages: [], chosen: {} };
try {
  for (const name of names) {
    for (const theme of THEMES) {
      const before = server.log.length;
      const { page, errors } = await open(name, theme, SIZES[0]);
      for (const size of SIZES) {
        await page.setViewportSize({ width: size[0], height: size[1] });
        await drawn(page);
        const fits = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth + 16);
        await picture(page, `${name}-${theme}-${size[0]}`);
        const seen = { fits, ...(await read(page)) };
        result.pages.push({ name, theme, size, errors, queries: server.log.slice(before), ...seen });
      }
      await page.close();
    }
  }
  if (names.includes('overview')) {
    const { page } = await open('overview', 'dark', SIZES[0]);
    result.chosen = { Source: await choose(page, 'Source', 'cloro-demo') };
    await page.close();
  }
} finally {
  await browser.close();
  server.server.close();
  fs.rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(result));
