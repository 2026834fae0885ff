// The auditors' screens: the trail, verification in the browser with bundles that are altered on the way, and as of.
// CONSOLE_CODE is somebody who may read the audit trail, CONSOLE_ORGANIZATION their organization's name, CONSOLE_AUDIT_KEY
// what `tenancy audit key` prints.
import assert from 'node:assert/strict';
import { check, eachLook, fine, launch, open, opensByTwo, settled, shoot, url, violations } from './browser.mjs';

const code = process.env.CONSOLE_CODE ?? 'ada@example.com';
const organization = process.env.CONSOLE_ORGANIZATION ?? 'Acme';
const key = process.env.CONSOLE_AUDIT_KEY ?? '';
const screens = (process.env.CONSOLE_SCREENS ?? 'audit verify as-of').split(' ');
const browser = await launch();

try {
  const person = await open(browser, { code });
  const { page, context, wrong, requests } = person;
  await page.getByRole('main').getByRole('link', { name: organization }).click();
  await page.getByRole('heading', { name: 'Last events' }).waitFor();
  const home = new URL(page.url()).pathname;
  const at = (screen) => `${url}${home}/${screen}`;

  await check('the trail takes two requests, and reads as sentences', async () => {
    await page.goto(at('audit'));
    await opensByTwo(person, page.getByRole('grid'));
    await fine(page, 'audit');
  });

  await check('an event has its details, old and new, and JSON', async () => {
    await page.getByRole('row').nth(1).focus();
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog');
    await dialog.getByText('JSON').click();
    await dialog.getByText('"correlationId"').waitFor();
    await fine(page, 'audit-details');
    await dialog.getByRole('button', { name: 'Only this subject' }).click();
    await page.getByRole('button', { name: 'Clear filters' }).waitFor();
    await settled(page);
    await shoot(page, 'audit-filtered');
    await page.getByRole('button', { name: 'Clear filters' }).first().click();
  });

  await check('filters leave what fits, or say that nothing does', async () => {
    await page.getByRole('button', { name: /About/ }).click();
    await page.getByRole('option', { name: 'Organization' }).click();
    await page.getByRole('row').filter({ hasText: 'org.created' }).waitFor();
    await page.getByLabel('From', { exact: true }).fill('2001-01-01');
    await page.getByLabel('Up to and with').fill('2001-01-02');
    await page.getByText('No event fits these filters').waitFor();
    assert.deepEqual(await violations(page), []);
    await page.getByRole('button', { name: 'Clear filters' }).first().click();
    await page.getByRole('grid').waitFor();
  });

  for (const format of ['Bundle with proofs', 'Table', 'For a SIEM']) {
    await check(`export: ${format}`, async () => {
      const coming = page.waitForEvent('download');
      await page.getByRole('button', { name: 'Export' }).click();
      await page.getByRole('menuitem', { name: format }).click();
      const file = await coming;
      assert.match(file.suggestedFilename(), /^org_/);
    });
  }

  const verify = async (target = page) => {
    await target.getByRole('button', { name: 'Verify the whole trail' }).click();
    await target.getByRole('heading', { name: 'Outcome' }).waitFor();
    return target.getByRole('status').filter({ hasText: /Verified|Refused|no signature/ }).innerText();
  };

  await check('verification without a key says that no signature was checked', async () => {
    await page.goto(at('verify'));
    await page.getByRole('heading', { name: 'What to verify against' }).waitFor();
    assert.match(await verify(), /no signature was checked/);
    await fine(page, 'verify-unsigned');
  });

  if (key) {
    await check('verification with the key, twice: the second continues the first', async () => {
      await page.getByLabel('Verifier key').fill(key);
      assert.match(await verify(), /^Verified/m);
      await page.getByText('This browser remembers a checkpoint').waitFor();
      assert.match(await verify(), /^Verified/m);
      await page.getByText('that this browser verified before').waitFor();
      await fine(page, 'verify-accepted');
    });

    const altered = (change) =>
      page.route('**/audit/*/export', async (route) => {
        const response = await route.fetch();
        const lines = (await response.text()).split('\n');
        await route.fulfill({ response, body: change(lines).join('\n') });
      });
    const cases = {
      altered: [(lines) => lines.with(5, lines[5].replace('"actor":"', '"actor":"x')), 'Event 4 was altered'],
      missing: [(lines) => lines.toSpliced(5, 1), 'Event 4 is missing'],
      added: [(lines) => lines.toSpliced(5, 0, lines[5].replace('"auditSequence":"4"', '"auditSequence":"4000"').replace('"eventId":"', '"eventId":"x')), 'was added'],
      moved: [(lines) => lines.with(5, lines[6]).with(6, lines[5]), 'was moved'],
    };
    for (const [name, [change, text]] of Object.entries(cases)) {
      await check(`what is ${name} is named`, async () => {
        await altered(change);
        assert.match(await verify(), /^Refused/m);
        await page.getByText(text).first().waitFor();
        if (name === 'altered') assert.deepEqual(await violations(page), []);
        await shoot(page, `verify-${name}`);
        await page.unroute('**/audit/*/export');
      });
    }
  }

  if (screens.includes('as-of')) {
    await check('as of: the slider goes to the beginning, and the difference reads', async () => {
      await page.goto(at('as-of'));
      await page.getByRole('heading', { name: 'What changed' }).waitFor();
      await settled(page);
      requests.length = 0;
      await page.reload();
      await page.getByRole('slider').first().waitFor();
      await page.getByRole('heading', { name: 'What changed' }).waitFor();
      await settled(page);
      // The first content. Of more than a hundred projects the rest is read on, by documents without a name.
      assert.ok(requests.filter(Boolean).length <= 2, requests.join());
      await fine(page, 'as-of');
      await page.getByRole('slider').last().focus();
      await page.keyboard.press('ArrowLeft');
      await settled(page);
      await shoot(page, 'as-of-earlier');
    });
  }

  await check('nothing went wrong, and nobody else was asked', async () => assert.deepEqual(wrong, []));
  await context.close();

  await eachLook(browser, code, Object.fromEntries(screens.map((screen) => [screen, at(screen)])), {
    content: (screen) => ({ audit: '[role=grid]', verify: 'textarea', 'as-of': '[type=range]' })[screen],
  });
} finally {
  await browser.close();
}
