import { Link, useLocation, useSearchParams } from 'wouter';
import {
  OperatedOrganizationsDocument,
  type OrganizationLifecycle,
  type OrganizationVerification,
} from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { Filters, SearchField } from '../../parts/Filters.tsx';
import { Badge } from '../../parts/Notice.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import parts from '../../parts/parts.module.css';
import { Empty } from '../../parts/States.tsx';
import { Time } from '../../parts/Values.tsx';
import { places } from '../../shell/places.ts';
import { statusKey } from '../../shell/standing.tsx';
import { toneOf } from '../../shell/tones.ts';
import { useText } from '../../texts/texts.tsx';
import css from './organizations.module.css';

const VERIFICATIONS: readonly OrganizationVerification[] = ['IN_SETUP', 'PENDING', 'WAITLISTED', 'VERIFIED', 'REJECTED', 'BLOCKED'];
const LIFECYCLES: readonly OrganizationLifecycle[] = ['ACTIVE', 'INACTIVE', 'DELETED'];

export default function Organizations() {
  const t = useText();
  const [, go] = useLocation();
  // The filters stand in the address: the way back from an organization leads to the same list.
  const [params, setParams] = useSearchParams();
  const verification = VERIFICATIONS.find((one) => one === params.get('verification')) ?? null;
  const lifecycle = LIFECYCLES.find((one) => one === params.get('lifecycle')) ?? null;
  const search = params.get('search') ?? '';
  const set = (name: string, value: string) =>
    setParams(
      (before) => {
        const next = new URLSearchParams(before);
        if (value) next.set(name, value);
        else next.delete(name);
        return next;
      },
      { replace: true },
    );
  const filtered = search !== '' || verification !== null || lifecycle !== null;
  return (
    <Page title={t('organizations.title')} text={t('organizations.text')}>
      <Filters>
        <SearchField label={t('organizations.search')} value={search} onSearch={(value) => set('search', value)} />
        <Choice
          label={t('organizations.verification')}
          value={verification ?? 'ANY'}
          onChange={(value) => set('verification', value === 'ANY' ? '' : value)}
          options={[
            { value: 'ANY' as const, text: t('organizations.verification.any') },
            ...VERIFICATIONS.map((value) => ({ value, text: t(`verification.${value}`) })),
          ]}
        />
        <Choice
          label={t('organizations.lifecycle')}
          value={lifecycle ?? 'ANY'}
          onChange={(value) => set('lifecycle', value === 'ANY' ? '' : value)}
          options={[
            { value: 'ANY' as const, text: t('organizations.lifecycle.any') },
            ...LIFECYCLES.map((value) => ({ value, text: t(`lifecycle.${value}`) })),
          ]}
        />
      </Filters>
      <PagedList
        label={t('organizations.title')}
        document={OperatedOrganizationsDocument}
        variables={{ search: search || null, verification, lifecycle }}
        connection={({ organizations }) => organizations}
        onOpen={({ id }) => go(places.operate(`/organizations/${id}`))}
        empty={
          filtered ? (
            <Empty
              title={t('organizations.none')}
              action={<Button onPress={() => setParams({}, { replace: true })}>{t('organizations.clear')}</Button>}
            >
              {t('organizations.none.text')}
            </Empty>
          ) : (
            <Empty title={t('organizations.empty')} />
          )
        }
        columns={[
          {
            id: 'name',
            title: t('organizations.name'),
            width: 'minmax(0, 2fr)',
            cell: ({ id, name, slug, externalId }) => (
              <span className={parts.main}>
                <Link href={places.operate(`/organizations/${id}`)}>{name}</Link>
                <span className={parts.sub}>{externalId ? `${slug} · ${externalId}` : slug}</span>
              </span>
            ),
          },
          {
            id: 'status',
            title: t('organizations.status'),
            width: 'minmax(0, 1.4fr)',
            cell: (organization) => (
              <span className={css.badges}>
                <Badge tone={toneOf(organization)}>
                  {organization.purged ? t('organizations.purged') : t(statusKey(organization))}
                </Badge>
                {organization.legalHold ? <Badge tone="operator">{t('organizations.held')}</Badge> : null}
                {organization.purgeAt && !organization.purged ? (
                  <span className={parts.sub}>
                    {t('organizations.goneFor')} <Time at={organization.purgeAt} relative />
                  </span>
                ) : null}
              </span>
            ),
          },
          { id: 'plan', title: t('organizations.plan'), width: 'minmax(0, 0.6fr)', cell: ({ plan }) => plan },
          {
            id: 'created',
            title: t('organizations.created'),
            width: 'minmax(0, 0.8fr)',
            cell: ({ createdAt }) => <Time at={createdAt} withTime={false} />,
          },
        ]}
      />
    </Page>
  );
}
