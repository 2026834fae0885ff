import { Link, useLocation } from 'wouter';
import { useFeedState } from '../api/hooks.ts';
import { screens } from '../screens/index.ts';
import type { Group, Screen } from '../screens/screen.ts';
import { useText } from '../texts/texts.tsx';
import { AccountMenu } from './AccountMenu.tsx';
import { OrganizationSwitcher } from './OrganizationSwitcher.tsx';
import { places } from './places.ts';
import css from './shell.module.css';
import { useMay, useStanding } from './standing.tsx';

const GROUPS: readonly Group[] = ['organization', 'access', 'audit', 'operate'];

/** The column at the side: what the caller may open, and nothing else. */
export function Navigation({ onGo }: { onGo?: () => void }) {
  const t = useText();
  const [location] = useLocation();
  const may = useMay();
  const { organization } = useStanding();
  const plane = location.startsWith('/operate') ? 'operate' : 'organization';
  const feed = useFeedState();
  const shown = screens.filter(
    ({ plane: of, need }) => of === plane && (of === 'operate' || organization) && may(need).allowed,
  );
  return (
    <aside className={css.side} aria-label={t('nav.side')}>
      <OrganizationSwitcher />
      <nav className={css.nav} aria-label={t('nav.label')}>
        {GROUPS.map((group) => {
          const links = shown.filter((screen) => screen.group === group);
          if (links.length === 0) return null;
          return (
            <div key={group} className={css.group} role="group" aria-label={t(`nav.group.${group}`)}>
              <div className={css.groupTitle} aria-hidden>
                {t(`nav.group.${group}`)}
              </div>
              {links.map((screen) => {
                const to = addressOf(screen, organization?.id);
                const here = screen.path === '' ? location === to : location === to || location.startsWith(`${to}/`);
                return (
                  <Link
                    key={to}
                    href={to}
                    className={css.link}
                    aria-current={here ? 'page' : undefined}
                    onPointerEnter={() => void screen.preload()}
                    onFocus={() => void screen.preload()}
                    onClick={() => onGo?.()}
                  >
                    <screen.icon size={16} aria-hidden />
                    {t(screen.title)}
                  </Link>
                );
              })}
            </div>
          );
        })}
      </nav>
      <div className={css.foot}>
        {organization && plane === 'organization' ? (
          <div className={css.live} data-state={feed}>
            {t(`live.${feed}`)}
          </div>
        ) : null}
        <AccountMenu />
      </div>
    </aside>
  );
}

export function addressOf({ plane, path }: Screen, organizationId = ''): string {
  if (plane === 'person') return path;
  return plane === 'operate' ? places.operate(path) : places.organization(organizationId, path);
}
