import { useState } from 'react';
import { Link, useLocation } from 'wouter';
import { type AuditAction, FoundUsersDocument, UserEventsDocument } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { useEventSentence } from '../../parts/Event.tsx';
import { Field } from '../../parts/Field.tsx';
import { Filters, SearchField } from '../../parts/Filters.tsx';
import { newestFirst } from '../../parts/newest.ts';
import { Badge, Notice } from '../../parts/Notice.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import parts from '../../parts/parts.module.css';
import { Empty } from '../../parts/States.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { toneOfUser } from '../../shell/tones.ts';
import { useText } from '../../texts/texts.tsx';

const FILTERS = {
  REGISTERED: ['USER_REGISTERED'],
  HELD: ['USER_HELD'],
  DECIDED: ['USER_APPROVED', 'USER_REVOKED', 'USER_REINSTATED'],
  ERASED: ['USER_ERASED'],
} as const satisfies Record<string, readonly AuditAction[]>;
type Happening = keyof typeof FILTERS;
type Filter = 'EVERYBODY' | Happening;

export default function Users() {
  const t = useText();
  const [, go] = useLocation();
  const [search, setSearch] = useState('');
  const [filter, setFilter] = useState<Filter>('REGISTERED');
  const [id, setId] = useState('');
  const [noId, setNoId] = useState(false);
  return (
    <Page title={t('users.title')} text={t('users.text')}>
      <form
        className={parts.filters}
        role="search"
        aria-label={t('users.open')}
        onSubmit={(event) => {
          event.preventDefault();
          const wrong = !/^usr_[0-9a-z]{26}$/.test(id.trim());
          setNoId(wrong);
          if (!wrong) go(places.operate(`/users/${id.trim()}`));
        }}
      >
        <div className={parts.search}>
          <Field name="id" label={t('users.id')} placeholder="usr_…" value={id} onChange={setId} />
        </div>
        <Button type="submit">{t('users.open')}</Button>
      </form>
      {noId ? (
        <Notice tone="bad" role="alert">
          <p>{t('users.noId')}</p>
        </Notice>
      ) : null}
      <Filters>
        <SearchField label={t('users.search')} value={search} onSearch={setSearch} />
        {search ? null : (
          <Choice
            label={t('users.filter')}
            value={filter}
            onChange={setFilter}
            options={(['EVERYBODY', ...Object.keys(FILTERS)] as Filter[]).map((value) => ({ value, text: t(`users.filter.${value}`) }))}
          />
        )}
      </Filters>
      {search || filter === 'EVERYBODY' ? <Found search={search} /> : <Happened filter={filter} />}
    </Page>
  );
}

/** Those whose name or address the search fits; an empty one fits everybody. */
function Found({ search }: { search: string }) {
  const t = useText();
  const [, go] = useLocation();
  return (
    <PagedList
      label={t('users.title')}
      document={FoundUsersDocument}
      variables={{ search }}
      connection={({ users }) => users}
      onOpen={({ id }) => go(places.operate(`/users/${id}`))}
      empty={<Empty title={t('users.none')}>{t('users.none.text')}</Empty>}
      columns={[
        {
          id: 'person',
          title: t('users.person'),
          width: 'minmax(0, 2fr)',
          cell: ({ id, name, email }) => <Person id={id} name={name} email={email} />,
        },
        {
          id: 'state',
          title: t('user.state'),
          cell: ({ state }) => (state ? <Badge tone={toneOfUser[state]}>{t(`user.state.${state}`)}</Badge> : null),
        },
      ]}
    />
  );
}

/** What happened to users, the newest first. */
function Happened({ filter }: { filter: Happening }) {
  const t = useText();
  const [, go] = useLocation();
  const sentence = useEventSentence();
  return (
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
            return <Person id={event.subjectId} name={displayName} email={email} />;
          },
        },
        { id: 'what', title: t('users.what'), width: 'minmax(0, 1.4fr)', cell: (event) => sentence(event) },
        { id: 'when', title: t('users.when'), width: 'minmax(0, 0.7fr)', cell: ({ recordedAt }) => <Time at={recordedAt} relative /> },
      ]}
    />
  );
}

function Person({ id, name, email }: { id: string; name?: string | null; email?: string | null }) {
  return (
    <span className={parts.main}>
      <Link href={places.operate(`/users/${id}`)}>{name ?? email ?? id}</Link>
      <span className={parts.sub}>{name && email ? email : null}</span>
    </span>
  );
}
