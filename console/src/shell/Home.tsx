import { ChevronRight, Plus } from 'lucide-react';
import { Link, useLocation } from 'wouter';
import { Button } from '../parts/Button.tsx';
import { Badge, Notice } from '../parts/Notice.tsx';
import { Page } from '../parts/Page.tsx';
import { Empty } from '../parts/States.tsx';
import { useText } from '../texts/texts.tsx';
import { initials } from './AccountMenu.tsx';
import { places } from './places.ts';
import css from './shell.module.css';
import { statusKey, useStanding } from './standing.tsx';
import { toneOf } from './tones.ts';

/** The first page: the caller's organizations. It needs no request besides the shell's. */
export function Home() {
  const t = useText();
  const [, go] = useLocation();
  const { viewer } = useStanding();
  const own = viewer.memberships.nodes.filter(({ organization }) => organization);
  const button = (
    <Button look="primary" onPress={() => go(places.create)}>
      <Plus size={16} aria-hidden />
      {t('home.create')}
    </Button>
  );
  return (
    <Page title={t('home.title')} text={t('home.text')} actions={own.length > 0 ? button : null}>
      {viewer.invitations.nodes.length > 0 ? (
        <Notice tone="accent">
          <p>
            {t('mine.some')} <Link href={places.invitations}>{t('mine.look')}</Link>
          </p>
        </Notice>
      ) : null}
      {own.length === 0 ? (
        <Empty title={t('home.empty')} action={button}>
          {t('home.empty.text')}
        </Empty>
      ) : (
        <ul className={css.choices}>
          {own.map(({ id, organization, roles }) =>
            organization ? (
              <li key={id}>
                <Link href={places.organization(organization.id)} className={css.choice}>
                  <span className={css.mark} aria-hidden>
                    {initials(organization.name)}
                  </span>
                  <span>
                    <span className={css.name}>{organization.name}</span>
                    <span className={css.note}>
                      {organization.slug} · {roles.join(', ')}
                    </span>
                  </span>
                  <Badge tone={toneOf(organization)}>{t(statusKey(organization))}</Badge>
                  <ChevronRight size={16} aria-hidden />
                </Link>
              </li>
            ) : null,
          )}
        </ul>
      )}
    </Page>
  );
}
