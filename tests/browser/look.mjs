// Looks at pages in Chromium as people do: in a theme and some widths, with a screen reader's rules, and by the keyboard.
// usage: node look.mjs < job.json
// job: { pictures: FOLDER, visits: [visit] }; without a folder there are no pictures
// visit: { url, name, theme, widths: [number], height, tabs: whether to go through the page with the Tab key } and what to
//   do then: fill: [selector, text], press: text of a link or button, again: wait until the page comes again by itself
import axe from 'axe-core';
import { chromium } from 'playwright-core';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const job = JSON.parse(fs.readFileSync(0, 'utf8'));
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync'],
});

// Everything that the rules find, also what they could not decide, apart from what they say of text behind other text.
const rules = (page) =>
  page.evaluate(async () => {
    const { violations, incomplete, passes } = await window.axe.run(document, { resultTypes: ['violations', 'incomplete'] });
    const told = (found) =>
      found.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.target.join(' ')}: ${node.any.concat(node.all, node.none).map((one) => one.message).join('; ')}`));
    return { violations: told(violations), incomplete: told(incomplete), passes: passes.length };
  });

// Where the Tab key leads, in order, until it leaves the page; and whether each place can be seen to have the focus.
async function tabs(page) {
  const stops = [];
  await page.evaluate(() => document.activeElement?.blur());
  for (let count = 0; count < 400; count += 1) {
    await page.keyboard.press('Tab');
    const stop = await page.evaluate(() => {
      const one = document.activeElement;
      if (!one || one === document.body) return null;
      const box = one.getBoundingClientRect();
      const style = getComputedStyle(one);
      return {
        element: one.localName,
        text: (one.getAttribute('aria-label') ?? one.labels?.[0]?.textContent ?? one.textContent).trim().slice(0, 60),
        seen: style.outlineStyle !== 'none' && box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
      };
    });
    if (!stop) break;
    stops.push(stop);
  }
  return stops;
}

const seen = [];
for (const visit of job.visits) {
  const page = await browser.newPage();
  const faults = [];
  page.on('console', (message) => faults.push(message.text()));
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('dialog', (dialog) => dialog.dismiss());
  await page.emulateMedia({ colorScheme: visit.theme });
  for (const [at, width] of visit.widths.entries()) {
    await page.setViewportSize({ width, height: visit.height ?? 900 });
    if (!at) await page.goto(visit.url, { waitUntil: 'load' });
    await page.evaluate(axe.source);
    const found = {
      url: visit.url,
      theme: visit.theme,
      width,
      faults,
      ...(await rules(page)),
      // The page itself never scrolls sideways; tables may, within their own box.
      overflow: await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
      usable: await page.locator('a[href], input:not([type=hidden]), select, button, [tabindex="0"]').count(),
      tabs: visit.tabs && !at ? await tabs(page) : [],
    };
    if (job.pictures)
      await page.screenshot({
        path: path.join(job.pictures, `${visit.name}-${visit.theme}-${width}.png`),
        fullPage: !visit.height,
        animations: 'disabled',
      });
    seen.push(found);
  }
  const last = seen.at(-1);
  if (visit.fill) await page.fill(...visit.fill);
  if (visit.press) {
    const target = page.locator('main').getByRole(visit.fill ? 'button' : 'link', { name: visit.press, exact: true });
    await Promise.all([page.waitForURL((url) => String(url) !== visit.url), target.click()]);
    last.then = page.url();
  }
  if (visit.again) {
    await page.waitForEvent('framenavigated', { timeout: 600000 });
    last.again = page.url();
  }
  await page.close();
}
console.log(JSON.stringify(seen));
await browser.close();
fs.rmSync(profile, { recursive: true, force: true });
