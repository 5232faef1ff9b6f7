// Opens pages in Chromium and prints, as JSON, what each did: to be asked of pages that hold what strangers wrote.
// usage: node pages.mjs URL...
import { chromium } from 'playwright-core';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync'],
});

async function visit(url) {
  const page = await browser.newPage();
  const seen = { console: [], requests: [], dialogs: [], errors: [] };
  page.on('console', (message) => seen.console.push(message.text()));
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('request', (request) => seen.requests.push(new URL(request.url()).pathname));
  page.on('dialog', async (dialog) => {
    seen.dialogs.push(dialog.message());
    await dialog.dismiss();
  });
  await page.goto(url, { waitUntil: 'load' });
  Object.assign(
    seen,
    await page.evaluate(() => ({
      title: document.title,
      text: document.body?.innerText ?? '',
      links: [...document.querySelectorAll('a')].map((one) => one.href),
      elements: [...new Set([...document.querySelectorAll('*')].map((one) => one.localName))].sort(),
      width: getComputedStyle(document.querySelector('main') ?? document.body).maxWidth,
    })),
  );
  await page.close();
  return seen;
}

const found = {};
for (const url of process.argv.slice(2)) found[url] = await visit(url);
console.log(JSON.stringify(found));
await browser.close();
fs.rmSync(profile, { recursive: true, force: true });
