import { useState } from 'react';
import { Link, useLocation } from 'wouter';
import { type AuditAction, UserEventsDocument } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { useEventSentence } from '../../parts/Event.tsx';
import { Field } from '../../parts/Field.tsx';
import { newestFirst } from '../../parts/newest.ts';
import { Notice } from '../../parts/Notice.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import parts from '../../parts/parts.module.css';
import { Empty } from '../../parts/States.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { useText } from '../../texts/texts.tsx';
import css from './users.module.css';

const FILTERS = {
  REGISTERED: ['USER_REGISTERED'],
  HELD: ['USER_HELD'],
  DECIDED: ['USER_APPROVED', 'USER_REVOKED', 'USER_REINSTATED'],
  ERASED: ['USER_ERASED'],
} as const satisfies Record<string, readonly AuditAction[]>;
type Filter = keyof typeof FILTERS;

export default function Users() {
  const t = useText();
  const [, go] = useLocation();
  const sentence = useEventSentence();
  const [filter, setFilter] = useState<Filter>('REGISTERED');
  const [id, setId] = useState('');
  const [noId, setNoId] = useState(false);
  return (
    <Page title={t('users.title')} text={t('users.text')}>
      <form
        className={css.bar}
        role="search"
        aria-label={t('users.open')}
        onSubmit={(event) => {
          event.preventDefault();
          const wrong = !/^usr_[0-9a-z]{26}$/.test(id.trim());
          setNoId(wrong);
          if (!wrong) go(places.operate(`/users/${id.trim()}`));
        }}
      >
        <Field name="id" label={t('users.id')} placeholder="usr_…" value={id} onChange={setId} />
        <Button type="submit">{t('users.open')}</Button>
        <Choice
          label={t('users.filter')}
          value={filter}
          onChange={setFilter}
          options={(Object.keys(FILTERS) as Filter[]).map((value) => ({ value, text: t(`users.filter.${value}`) }))}
        />
      </form>
      {noId ? (
        <Notice tone="bad" role="alert">
          <p>{t('users.noId')}</p>
        </Notice>
      ) : null}
      <PagedList
        label={t('users.title')}
        document={UserEventsDocument}
        variables={{ actions: [...FILTERS[filter]] }}
        connection={({ auditTrail }) => newestFirst(auditTrail)}
        onOpen={({ subjectId }) => go(places.operate(`/users/${subjectId}`))}
        empty={<Empty title={t(`users.empty.${filter}`)}>{t('users.empty.text')}</Empty>}
        columns={[
          {
            id: 'person',
            title: t('users.person'),
            width: 'minmax(0, 1.4fr)',
            cell: (event) => {
              const { displayName, email } = (event.data ?? {}) as { displayName?: string | null; email?: string | null };
              return (
                <span className={parts.main}>
                  <Link href={places.operate(`/users/${event.subjectId}`)}>{displayName ?? email ?? event.subjectId}</Link>
                  <span className={parts.sub}>{displayName && email ? email : null}</span>
                </span>
              );
            },
          },
          { id: 'what', title: t('users.what'), width: 'minmax(0, 1.4fr)', cell: (event) => sentence(event) },
          { id: 'when', title: t('users.when'), width: 'minmax(0, 0.7fr)', cell: ({ recordedAt }) => <Time at={recordedAt} relative /> },
        ]}
      />
    </Page>
  );
}
