import { type FormEvent, useState } from 'react';
import { useLocation } from 'wouter';
import { useCommand } from '../../api/hooks.ts';
import { CreateOrganizationDocument } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { Field } from '../../parts/Field.tsx';
import { Refusals } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import parts from '../../parts/parts.module.css';
import { toast } from '../../parts/Toasts.tsx';
import { places } from '../../shell/places.ts';
import { useStanding } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import css from './settings.module.css';

/** A page of its own, so that one can be led to it. */
export default function Create() {
  const t = useText();
  const [, go] = useLocation();
  const { viewer } = useStanding();
  const create = useCommand(CreateOrganizationDocument);
  const [name, setName] = useState('');
  /** Follows the name until the person writes one. */
  const [slug, setSlug] = useState<string | null>(null);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    if (create.pending) return;
    const contactEmail = String(new FormData(event.currentTarget).get('contactEmail') ?? '').trim();
    const outcome = await create.run({ name, slug: slug ?? slugOf(name), ...(contactEmail ? { contactEmail } : {}) });
    const made = outcome?.done ? outcome.payload.organization : null;
    if (!made) return;
    toast(t('home.created', { name: made.name }));
    go(places.organization(made.id));
  };
  return (
    <Page title={t('settings.create')} text={t('settings.create.text')}>
      <div className={css.narrow}>
        <Card title={t('settings.create.card')}>
          <form className={parts.form} noValidate onSubmit={(event) => void submit(event)}>
            <Field name="name" label={t('home.create.name')} value={name} onChange={setName} refusals={create.refusals} isRequired autoFocus />
            <Field
              name="slug"
              label={t('home.create.slug')}
              hint={t('home.create.slug.hint')}
              value={slug ?? slugOf(name)}
              onChange={setSlug}
              refusals={create.refusals}
              isRequired
            />
            <Field
              name="contactEmail"
              type="email"
              label={t('settings.contact')}
              hint={t('settings.contact.hint')}
              defaultValue={viewer.user.email ?? ''}
              refusals={create.refusals}
            />
            <Refusals of={create} except={['name', 'slug', 'contactEmail']} />
            <div className={parts.dialogFoot}>
              <Button onPress={() => go(places.home)}>{t('act.cancel')}</Button>
              <Button type="submit" look="primary" isPending={create.pending}>
                {t('settings.create.act')}
              </Button>
            </div>
          </form>
        </Card>
      </div>
    </Page>
  );
}

function slugOf(name: string): string {
  return name
    .normalize('NFKD')
    .toLowerCase()
    .replace(/ß/g, 'ss')
    .replace(/[\u0300-\u036f]/g, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 63);
}
