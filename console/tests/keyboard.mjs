// The main acts with the keyboard alone: no pointer moves here. Each stop of Tab has to show that it has the focus, and what was
// opened gives the focus back when it closes. CONSOLE_CODE is the code of an owner of two organizations.
import assert from 'node:assert/strict';
import { check, launch, open, row, settled, shoot, violations } from './browser.mjs';

const code = process.env.CONSOLE_CODE ?? 'ada@example.com';
const guest = `keys-${Date.now().toString(36)}@example.com`;
const browser = await launch();

/** One person's keyboard. */
function keyboard(page) {
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  const has = (target) => target.evaluate((element) => element === document.activeElement);
  /** The focus shows, inside the window: at what has it, or at the label or the row around that. */
  const shows = () => {
    const element = document.activeElement;
    if (!element || element === document.body) return true;
    const around = element.closest('label') ?? element;
    const ring = [element, around, element.closest('[data-focus-visible]')].some((one) => {
      const { outlineStyle, boxShadow } = one ? getComputedStyle(one) : {};
      return (outlineStyle ?? 'none') !== 'none' || (boxShadow ?? 'none') !== 'none';
    });
    const { top, bottom, left, right } = around.getBoundingClientRect();
    return ring && bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
  };
  const where = () => page.evaluate(() => document.activeElement?.outerHTML.slice(0, 200));
  return {
    press,
    type: (text) => page.keyboard.type(text),
    /** Waits until this has the focus. */
    at: async (target, why) => {
      await target.waitFor();
      for (let turn = 0; turn < 30; turn++) {
        if (await has(target)) return;
        await page.waitForTimeout(100);
      }
      assert.fail(`${why}; the focus is at ${await where()}`);
    },
    /** Goes on by Tab, or back, until this has the focus. */
    reach: async (target, key = 'Tab') => {
      await target.waitFor();
      for (let step = 0; step < 60; step++) {
        await press(key);
        // A moment, for what moves into the window.
        await page.waitForFunction(shows, null, { timeout: 2000 }).catch(async () => assert.fail(`the focus does not show at ${await where()}`));
        if (await has(target)) return;
      }
      assert.fail(`Tab does not reach ${target}`);
    },
    /** In a menu or a list of choices: down to this one, and takes it. */
    choose: async (target) => {
      await target.waitFor();
      for (let step = 0; step < 20 && !(await has(target)); step++) await press('ArrowDown');
      assert.ok(await has(target), `the arrow keys do not reach ${target}`);
      await press('Enter');
    },
  };
}

try {
  const { page, wrong } = await open(browser, { code });
  const { press, type, at, reach, choose } = keyboard(page);
  const main = page.locator('#main');
  const link = (name) => page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name, exact: true });
  const button = (name, within = page) => within.getByRole('button', { name });
  const dialog = page.getByRole('dialog');
  // Notices are alert dialogs too, but not modal ones.
  const question = page.locator('[role=alertdialog]:not([aria-modal=false])');

  await check('the first stop is the way to the content', async () => {
    await main.getByRole('link', { name: /^Acme/ }).waitFor();
    await press('Tab');
    await at(page.getByRole('link', { name: 'To the content' }), 'the first Tab reaches the skip link');
    assert.deepEqual(await violations(page), []);
    await shoot(page, 'keyboard-skip');
    await press('Enter');
    await at(main, 'the skip link leads to the content');
    await reach(main.getByRole('link', { name: /^Acme/ }));
    await press('Enter');
    await page.getByRole('heading', { name: 'Last events' }).waitFor();
    await at(main, 'after a step to another page the keyboard is at its content');
  });

  await check('the navigation opens a screen, and the focus goes with it', async () => {
    await reach(link('Invitations'), 'Shift+Tab');
    await press('Enter');
    await page.getByRole('heading', { name: 'Invitations', level: 1 }).waitFor();
    await at(main, 'the focus goes with the page');
  });

  const invite = button('Invite', main).first();
  await check('Escape closes a dialog, and the focus returns', async () => {
    await reach(invite);
    await press('Enter');
    await at(dialog.getByLabel('Address'), 'the first field has the focus');
    await press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await at(invite, 'the focus returns to the button');
  });

  await check('somebody is invited', async () => {
    await press('Enter');
    await at(dialog.getByLabel('Address'), 'the first field has the focus');
    await type(guest);
    await reach(dialog.getByRole('checkbox', { name: /^admin/ }));
    await press('Space');
    assert.equal(await dialog.getByRole('checkbox', { name: /^admin/ }).isChecked(), true);
    await reach(dialog.getByRole('button', { name: 'Invite' }));
    await press('Enter');
    await dialog.getByRole('heading', { name: 'Send this link' }).waitFor();
    await reach(dialog.getByLabel('Link', { exact: true }));
    await press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await at(invite, 'the focus returns over two dialogs');
  });

  await check('they find it and accept', async () => {
    const other = await open(browser, { code: guest });
    const keys = keyboard(other.page);
    await keys.reach(other.page.getByRole('link', { name: 'Look at it' }));
    await keys.press('Enter');
    await keys.reach(other.page.getByRole('button', { name: /^Accept the invitation/ }));
    await keys.press('Enter');
    await other.page.getByRole('heading', { level: 1, name: /^Acme/ }).waitFor();
    assert.deepEqual(other.wrong, []);
    await other.context.close();
  });

  const actions = row(page, guest).getByRole('button', { name: /^Actions/ });
  await check('the arrow keys move in the list, Enter goes into a row, Escape out of it', async () => {
    await reach(link('Members'), 'Shift+Tab');
    await press('Enter');
    await row(page, guest).waitFor();
    await settled(page);
    await reach(page.getByRole('row').nth(1));
    await press('End');
    await at(row(page, guest), 'the newest member is the last row');
    await press('Enter');
    await at(actions, 'Enter goes to what is in the row');
    await press('Escape');
    await at(row(page, guest), 'Escape goes back to the row');
  });

  await check('a menu opens, and Escape gives the focus back', async () => {
    await press('Enter', 'Enter');
    await at(page.getByRole('menuitem').first(), 'the first action has the focus');
    await press('Escape');
    await at(actions, 'the focus returns to the menu’s button');
  });

  await check('roles are changed', async () => {
    await press('Enter');
    await choose(page.getByRole('menuitem', { name: 'Change roles' }));
    await reach(dialog.getByRole('checkbox', { name: /^admin/ }));
    await press('Space');
    await reach(dialog.getByRole('button', { name: 'Save' }));
    await press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await row(page, guest).getByText('admin', { exact: true }).waitFor({ state: 'detached' });
    await at(actions, 'the focus returns to the row that was changed');
  });

  await check('the undo of a notice is reached', async () => {
    await reach(button('Undo').first());
    await press('Enter');
    await row(page, guest).getByText('admin', { exact: true }).waitFor();
    await at(actions, 'the focus returns to where it was before the notice');
  });

  await check('a member is removed: Escape asks nothing of them, and the list keeps the focus', async () => {
    await press('Enter');
    await choose(page.getByRole('menuitem', { name: 'Remove' }));
    await question.waitFor();
    await press('Escape');
    await question.waitFor({ state: 'detached' });
    await at(actions, 'the focus returns to the row');
    await press('Enter');
    await choose(page.getByRole('menuitem', { name: 'Remove' }));
    await reach(button('Remove', question));
    await press('Enter');
    await row(page, guest).waitFor({ state: 'detached' });
    await at(page.getByRole('row').last(), 'where the row was, its neighbour has the focus');
  });

  await check('the audit trail is filtered, and shown whole again', async () => {
    await reach(link('Audit trail'), 'Shift+Tab');
    await press('Enter');
    await page.getByRole('grid').waitFor();
    const about = button(/About/);
    await reach(about);
    await press('Enter');
    await choose(page.getByRole('option', { name: 'Organization' }));
    await at(about, 'the focus returns to the filter');
    await page.getByRole('row').filter({ hasText: 'org.created' }).waitFor();
    const clear = button('Clear filters').first();
    await reach(clear);
    await press('Enter');
    await clear.waitFor({ state: 'detached' });
    await at(about, 'the focus goes to the filters when their button goes');
  });

  await check('an event opens, and Escape leads back to it', async () => {
    const first = page.getByRole('row').nth(1);
    await settled(page);
    await reach(first);
    await press('Enter');
    await dialog.waitFor();
    await press('Escape');
    await at(first, 'the focus returns to the event');
  });

  await check('another organization is chosen', async () => {
    const switcher = button(/^Organization/);
    await reach(switcher, 'Shift+Tab');
    await press('Enter');
    await page.getByRole('menuitem', { name: 'Fresh Ventures' }).waitFor();
    await press('Escape');
    await at(switcher, 'the focus returns to the switcher');
    await press('Enter');
    await choose(page.getByRole('menuitem', { name: 'Fresh Ventures' }));
    await page.getByRole('heading', { name: 'Fresh Ventures', level: 1 }).waitFor();
    await at(main, 'the focus is at the other organization’s content');
  });

  await check('signing out', async () => {
    const account = button(/^Account/);
    await reach(account, 'Shift+Tab');
    await press('Enter');
    await choose(page.getByRole('menuitem', { name: 'Sign out' }));
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
    assert.deepEqual(wrong, []);
  });

  await check('on a narrow screen the drawer opens and gives the focus back', async () => {
    const { page, wrong } = await open(browser, { code, width: 360 });
    const { press, at, reach } = keyboard(page);
    const opener = page.getByRole('button', { name: 'Open navigation' });
    await reach(opener);
    await press('Enter');
    await page.getByRole('dialog').waitFor();
    await press('Escape');
    await at(opener, 'the focus returns to the button');
    assert.deepEqual(wrong, []);
  });
} finally {
  await browser.close();
}
