import { Check, ChevronsUpDown } from 'lucide-react';
import { Button as AriaButton, Menu, MenuItem, MenuTrigger, Popover, Separator } from 'react-aria-components';
import { useLocation } from 'wouter';
import parts from '../parts/parts.module.css';
import { screens } from '../screens/index.ts';
import { useText } from '../texts/texts.tsx';
import { initials } from './AccountMenu.tsx';
import { places } from './places.ts';
import css from './shell.module.css';
import { statusKey, useStanding } from './standing.tsx';

export function OrganizationSwitcher() {
  const t = useText();
  const [location, go] = useLocation();
  const { viewer, organization } = useStanding();
  const operating = location.startsWith('/operate');
  const name = operating ? t('nav.group.operate') : (organization?.name ?? t('switcher.choose'));
  const own = viewer.memberships.nodes.flatMap(({ organization }) => organization ?? []);
  const operatorsHome = screens.find(({ plane }) => plane === 'operate');
  return (
    <MenuTrigger>
      <AriaButton className={css.switcher!}>
        <span className="hidden-text">{t('switcher.label')} </span>
        <span className={css.mark} data-plane={operating ? 'operate' : undefined} aria-hidden>
          {initials(name)}
        </span>
        <span>
          <span className={css.name}>{name}</span>
          <span className={css.note}>{!operating && organization ? t(statusKey(organization)) : 'tenancy'}</span>
        </span>
        <ChevronsUpDown size={14} aria-hidden />
      </AriaButton>
      <Popover className={parts.popover!} placement="bottom start">
        <Menu className={parts.menu!} onAction={(key) => go(String(key))}>
          {own.map(({ id, name }) => (
            <MenuItem key={id} id={places.organization(id)} className={parts.menuItem!} textValue={name}>
              <Check size={14} aria-hidden visibility={id === organization?.id ? 'visible' : 'hidden'} />
              {name}
            </MenuItem>
          ))}
          <Separator className={parts.menuLine!} />
          <MenuItem id={places.home} className={parts.menuItem!}>
            {t('switcher.all')}
          </MenuItem>
          <MenuItem id={places.create} className={parts.menuItem!}>
            {t('home.create')}
          </MenuItem>
          {viewer.operator && operatorsHome ? (
            <MenuItem id={places.operate(operatorsHome.path)} className={parts.menuItem!}>
              {t('nav.group.operate')}
            </MenuItem>
          ) : null}
        </Menu>
      </Popover>
    </MenuTrigger>
  );
}
