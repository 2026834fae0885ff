// The console as the program itself serves it: a link signs an operator in, a session outlives a reload and ends at sign-out.
// CONSOLE_SERVICE says where; CONSOLE_PROGRAM prints the links.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { launch } from './browser.mjs';

const service = process.env.CONSOLE_SERVICE ?? 'http://127.0.0.1:8080';
const link = () => execFileSync(process.env.CONSOLE_PROGRAM ?? 'tenancy', ['console']).toString().trim();
const browser = await launch();
try {
  const context = await browser.newContext();
  const page = await context.newPage();
  const wrong = [];
  page.on('console', (message) => message.type() === 'error' && wrong.push(message.text()));
  page.on('pageerror', (error) => wrong.push(String(error)));
  page.on('request', (request) => new URL(request.url()).origin !== service && wrong.push(request.url()));
  const first = link();
  await page.goto(first);
  await page.locator('#main').waitFor();
  assert.equal(new URL(page.url()).hash, '');
  console.log('ok a link signs in');

  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert.doesNotMatch(kept, /eyJ|tenancy-console/);
  await page.reload();
  await page.locator('#main').waitFor();
  console.log('ok a session outlives a reload, and no script reads it');

  assert.deepEqual(wrong, []);
  await page.getByRole('button', { name: /^Account/ }).click();
  await page.getByRole('menuitem', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
  await page.goto(`${service}/console/`);
  await page.locator('#main').waitFor({ state: 'detached' });
  await page.goto('about:blank');
  await page.goto(first);
  await page.getByRole('heading', { name: 'This link was used already' }).waitFor();
  console.log('ok sign-out ends the session, and a link counts once');
} finally {
  await browser.close();
}
