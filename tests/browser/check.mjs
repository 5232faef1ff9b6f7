// Renders dashboards in Chromium with Grafana's published packages and prints, as JSON, what a person would see.
// usage: node check.mjs < job.json
// job: { prometheus: URL, dashboards: FOLDER, pictures: FOLDER or null, visits: [visit] }
// visit: { name, theme, sizes: [[width, height]], params: { from, to, "var-source", … } } and at most one thing to do then:
//   choose: [variable, option], fill: [variable, text], follow: text of a link
import { chromium } from 'playwright-core';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { start } from './server.mjs';

const job = JSON.parse(fs.readFileSync(0, 'utf8'));
const server = await start({ prom: job.prometheus, dashboards: job.dashboards });
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
  page.waitForFunction(() => window.__fatal || window.__settled?.(), null, { timeout: 600000, polling: 100 });
// Two frames after the data has come the panels are drawn; a resize is drawn when the grid has its new width.
const drawn = (page) =>
  page.evaluate(
    () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 250)))),
  );

async function open(visit) {
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
  await page.setViewportSize({ width: visit.sizes[0][0], height: visit.sizes[0][1] });
  const params = new URLSearchParams({ ...visit.params, theme: visit.theme });
  await page.goto(`${server.url}/d/${visit.name}?${params}`);
  await settled(page);
  await drawn(page);
  return { page, errors };
}

// What is drawn of each panel: its text, and the texts and tables that do not fit where they are.
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
        if (own && parseFloat(getComputedStyle(element).fontSize) < 10) cut.push(`${element.textContent.trim()}: too small`);
        // Neither has text within a line a size of its own: it ends where its cell does.
        const cell = own && element.clientWidth === 0 && element.closest('[role=gridcell]');
        if (cell && element.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1)
          cut.push(element.textContent.trim());
        // The heading of a column of numbers is cut off at its beginning.
        if (element.role === 'columnheader') {
          const edge = element.getBoundingClientRect().left - 1;
          if ([...element.querySelectorAll('*')].some((inner) => inner.getBoundingClientRect().left < edge))
            cut.push(element.textContent.trim());
        }
        if (element.role === 'grid' && element.scrollWidth > element.clientWidth + 1)
          cut.push('columns of the table');
        // What is there for screen readers alone is one pixel high.
        const tall = element.clientHeight > 1 && element.scrollHeight > element.clientHeight + 1;
        if (element.role === 'grid') {
          // A long table has to be scrolled; without that it is to tell something.
          const end = element.getBoundingClientRect().bottom + 1;
          const rows = [...element.querySelectorAll('[role=row]')];
          // Rows themselves have no box; the first of them is the heading.
          const whole = rows.filter((row) => row.lastElementChild.getBoundingClientRect().bottom <= end).length - 1;
          if (tall && whole < 5) cut.push(`rows of the table after the first ${whole}`);
        } else if (tall && getComputedStyle(element).overflowY !== 'visible')
          cut.push(`what has to be scrolled: ${element.innerText.slice(-40)}`);
      }
      // What is drawn in lines that are too low for their texts.
      for (const svg of section.querySelectorAll('svg')) {
        const boxes = [...svg.querySelectorAll('text')].map((text) => text.getBoundingClientRect());
        const below = (one) => boxes.find((other) => Math.abs(other.left - one.left) < 1 && other.top > one.top);
        if (boxes.some((one) => below(one)?.top < one.bottom - 3)) cut.push('lines of text, by each other');
      }
      shown[title] = {
        text: section.innerText,
        cut,
        left: box.left,
        right: box.right,
        height: box.height,
        links: [...section.querySelectorAll('a[href]')].map((a) => a.getAttribute('href')),
        drawn: [...section.querySelectorAll('[data-harness-drawn]')].every((e) => e.dataset.harnessDrawn === 'true'),
        annotations: [...section.querySelectorAll('[data-harness-annotation]')].map((a) => a.dataset.harnessAnnotation),
      };
    }
    return {
      shown,
      fatal: window.__fatal,
      panels: window.__panels(),
      variables: window.__vars(),
      ids: window.__idProblems,
      links: [...document.querySelectorAll('[data-harness-link]')].map((a) => [a.innerText, a.getAttribute('href')]),
      width: document.documentElement.scrollWidth,
      height: document.documentElement.scrollHeight,
    };
  });

async function picture(page, name, end) {
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  const { width } = page.viewportSize();
  await page.setViewportSize({ width, height });
  await drawn(page);
  const clip = { x: 0, y: 0, width, height: end ?? height };
  if (job.pictures) await page.screenshot({ path: path.join(job.pictures, `${name}.png`), clip });
}

const input = (page, variable) =>
  page
    .getByTestId('data-testid template variable')
    .filter({ has: page.getByText(variable, { exact: true }) })
    .locator('input')
    .first();

// What a person does on the page: choose in a drop-down, write into a text box, or follow a link.
async function act(page, visit) {
  if (visit.follow) {
    await Promise.all([page.waitForNavigation(), page.locator('a', { hasText: visit.follow }).first().click()]);
  } else {
    const [variable, value] = visit.choose ?? visit.fill;
    await input(page, variable).click();
    if (visit.choose) {
      await page.locator('[role=option]', { hasText: value }).first().click();
      await page.keyboard.press('Escape');
    } else await input(page, variable).fill(value);
    await page.mouse.click(5, 400);
    await page.waitForFunction(
      ([label, wanted]) => window.__vars().find((v) => v.label === label).value === wanted,
      [variable, value],
      { timeout: 600000 },
    );
  }
  await settled(page);
  await drawn(page);
}

const pages = [];
try {
  for (const visit of job.visits) {
    const before = server.log.length;
    const { page, errors } = await open(visit);
    const { name, theme } = visit;
    for (const size of visit.sizes) {
      await page.setViewportSize({ width: size[0], height: size[1] });
      await drawn(page);
      const fits = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth + 16);
      await picture(page, `${visit.picture || name}-${theme}-${size[0]}`, visit.height);
      pages.push({ name, theme, size, errors, fits, queries: server.log.slice(before), ...(await read(page)) });
    }
    if (visit.choose || visit.fill || visit.follow) {
      const done = server.log.length;
      await act(page, visit);
      pages.at(-1).then = { queries: server.log.slice(done), url: page.url(), ...(await read(page)) };
    }
    await page.close();
  }
} finally {
  await browser.close();
  server.server.close();
  fs.rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(pages));
