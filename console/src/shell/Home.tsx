import { ChevronRight, Plus } from 'lucide-react';
import { Link, useLocation } from 'wouter';
import { useCommand } from '../api/hooks.ts';
import { CreateOrganizationDocument } from '../generated/graphql.ts';
import { Button } from '../parts/Button.tsx';
import { FormDialog, useDialog } from '../parts/Dialogs.tsx';
import { Field } from '../parts/Field.tsx';
import { Badge } from '../parts/Notice.tsx';
import { Page } from '../parts/Page.tsx';
import { Empty } from '../parts/States.tsx';
import { toast } from '../parts/Toasts.tsx';
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
  const dialog = useDialog();
  const create = useCommand(CreateOrganizationDocument);
  const own = viewer.memberships.nodes.filter(({ organization }) => organization);
  const button = (
    <Button look="primary" onPress={() => dialog.open('create', null)}>
      <Plus size={16} aria-hidden />
      {t('home.create')}
    </Button>
  );
  return (
    <Page title={t('home.title')} text={t('home.text')} actions={own.length > 0 ? button : null}>
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
      {dialog.of('create') ? (
        <FormDialog
          title={t('home.create')}
          action={t('home.create')}
          command={create}
          close={dialog.close}
          fields={['name', 'slug']}
          act={async ({ name = '', slug = '' }) => {
            const outcome = await create.run({ name, slug });
            const made = outcome?.done ? outcome.payload.organization : null;
            if (!made) return false;
            toast(t('home.created', { name: made.name }));
            go(places.organization(made.id));
            return true;
          }}
        >
          <Field name="name" label={t('home.create.name')} refusals={create.refusals} isRequired autoFocus />
          <Field name="slug" label={t('home.create.slug')} hint={t('home.create.slug.hint')} refusals={create.refusals} isRequired />
        </FormDialog>
      ) : null}
    </Page>
  );
}
