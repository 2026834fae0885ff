import { Check, ChevronsUpDown } from 'lucide-react';
import {
  Button as AriaButton,
  Header,
  Menu,
  MenuItem,
  MenuSection,
  MenuTrigger,
  Popover,
  Separator,
} from 'react-aria-components';
import { useLocation } from 'wouter';
import parts from '../parts/parts.module.css';
import { LANGUAGES, type Language, useLanguage, useText } from '../texts/texts.tsx';
import { useSession } from './App.tsx';
import { places } from './places.ts';
import css from './shell.module.css';
import { useStanding } from './standing.tsx';
import { type Theme, useTheme } from './theme.ts';

export function AccountMenu() {
  const t = useText();
  const { viewer } = useStanding();
  const session = useSession();
  const [, go] = useLocation();
  const { language, choose } = useLanguage();
  const [theme, setTheme] = useTheme();
  const name = viewer.user.name ?? viewer.user.email ?? viewer.user.id;
  return (
    <MenuTrigger>
      <AriaButton className={css.switcher!}>
        <span className="hidden-text">{t('account.open')} </span>
        <span className={css.mark} aria-hidden>
          {initials(name)}
        </span>
        <span>
          <span className={css.name}>{name}</span>
          <span className={css.note}>{viewer.operator ? t('operator.badge') : viewer.user.email}</span>
        </span>
        <ChevronsUpDown size={14} aria-hidden />
      </AriaButton>
      <Popover className={parts.popover!} placement="top start">
        <Menu
          className={parts.menu!}
          onAction={(key) => {
            const [what, value] = String(key).split(':');
            if (what === 'theme') setTheme(value as Theme);
            if (what === 'language') choose(value as Language);
            if (what === 'invitations') go(places.invitations);
            if (what === 'out') void session.signOut();
          }}
        >
          <MenuSection>
            <Header className={parts.menuTitle!}>{t('account.theme')}</Header>
            {(['system', 'light', 'dark'] as const).map((one) => (
              <Choice key={one} id={`theme:${one}`} chosen={theme === one} text={t(`account.theme.${one}`)} />
            ))}
          </MenuSection>
          <Separator className={parts.menuLine!} />
          <MenuSection>
            <Header className={parts.menuTitle!}>{t('account.language')}</Header>
            {Object.entries(LANGUAGES).map(([one, text]) => (
              <Choice key={one} id={`language:${one}`} chosen={language === one} text={text} />
            ))}
          </MenuSection>
          <Separator className={parts.menuLine!} />
          <MenuItem id="invitations" className={parts.menuItem!}>
            {t('mine.title')}
          </MenuItem>
          <MenuItem id="out" className={parts.menuItem!}>
            {t('account.signOut')}
          </MenuItem>
        </Menu>
      </Popover>
    </MenuTrigger>
  );
}

function Choice({ id, chosen, text }: { id: string; chosen: boolean; text: string }) {
  return (
    <MenuItem id={id} className={parts.menuItem!} textValue={text}>
      <Check size={14} aria-hidden visibility={chosen ? 'visible' : 'hidden'} />
      {text}
      {chosen ? <span className="hidden-text"> ✓</span> : null}
    </MenuItem>
  );
}

export function initials(name: string): string {
  const words = name.split(/[\s@.]+/).filter(Boolean);
  return ((words[0]?.[0] ?? '?') + (words.length > 1 ? (words[1]?.[0] ?? '') : '')).toUpperCase();
}
