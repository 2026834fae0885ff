import { Download } from 'lucide-react';
import { useRef, useState } from 'react';
import { Dialog, Heading, Modal, ModalOverlay, MenuTrigger, Popover, Menu } from 'react-aria-components';
import { Fault } from '@tenancy/client';
import { useApi } from '../../api/hooks.ts';
import { type AuditAction, type AuditFilter, type AuditRowFragment, AuditTrailDocument } from '../../generated/graphql.ts';
import { ACTIONS, actionName, kindOf } from '../../parts/actions.ts';
import { Button } from '../../parts/Button.tsx';
import { Choice } from '../../parts/Choice.tsx';
import { download } from '../../parts/download.ts';
import { useEventSentence } from '../../parts/Event.tsx';
import { Field } from '../../parts/Field.tsx';
import { ActionItem } from '../../parts/Menu.tsx';
import { Refusals } from '../../parts/Notice.tsx';
import { Page } from '../../parts/Page.tsx';
import { PagedList } from '../../parts/PagedList.tsx';
import parts from '../../parts/parts.module.css';
import { Empty } from '../../parts/States.tsx';
import { toast } from '../../parts/Toasts.tsx';
import { Time } from '../../parts/Values.tsx';
import { useOrganization } from '../../shell/standing.tsx';
import { useText } from '../../texts/texts.tsx';
import css from './audit.module.css';
import { changesOf } from './changes.ts';

type Row = AuditRowFragment;
const KINDS = [...new Set(ACTIONS.map(kindOf))].filter((kind) => kind !== 'user');
const FORMATS = ['ndjson', 'csv', 'ocsf'] as const;

interface Chosen {
  kind: string;
  action: string;
  actor: string;
  subject: string;
  since: string;
  until: string;
}
const NOTHING: Chosen = { kind: '', action: '', actor: '', subject: '', since: '', until: '' };

/** Other screens lead here with `?subject=` or `?actor=`. */
function chosenByAddress(): Chosen {
  const asked = new URLSearchParams(location.search);
  return { ...NOTHING, actor: asked.get('actor') ?? '', subject: asked.get('subject') ?? '' };
}

function filterOf({ kind, action, actor, subject, since, until }: Chosen): AuditFilter | null {
  const day = (text: string, plus: number) => {
    const [year = 0, month = 1, date = 1] = text.split('-').map(Number);
    return new Date(year, month - 1, date + plus).toISOString();
  };
  const filter: AuditFilter = {
    ...(action ? { actions: [action as AuditAction] } : kind ? { actions: ACTIONS.filter((one) => kindOf(one) === kind) } : {}),
    ...(actor ? { actorIds: [actor.trim()] } : {}),
    ...(subject ? { subjectIds: [subject.trim()] } : {}),
    ...(since ? { since: day(since, 0) } : {}),
    // The last day is one of them.
    ...(until ? { until: day(until, 1) } : {}),
  };
  return Object.keys(filter).length > 0 ? filter : null;
}

export default function Audit() {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const sentence = useEventSentence();
  const [chosen, setChosen] = useState(chosenByAddress);
  const [open, setOpen] = useState<Row | null>(null);
  const choose = (change: Partial<Chosen>) => setChosen((last) => ({ ...last, ...change }));
  const filter = filterOf(chosen);
  const filters = useRef<HTMLDivElement>(null);
  const clear = () => {
    setChosen(NOTHING);
    // The button goes, and the keyboard goes on at the first filter.
    filters.current?.querySelector('button')?.focus();
  };
  return (
    <Page
      title={t('audit.title')}
      text={t('audit.text')}
      actions={<Exports filter={filter} />}
    >
      <div ref={filters} className={css.filters} role="group" aria-label={t('audit.filters')}>
        <Choice
          label={t('audit.kind')}
          labelled
          value={chosen.kind}
          onChange={(kind) => choose({ kind, action: '' })}
          options={[{ value: '', text: t('audit.kind.all') }, ...KINDS.map((kind) => ({ value: kind, text: t(`audit.kind.${kind}` as 'audit.kind.org') }))]}
        />
        <Choice
          label={t('audit.action')}
          labelled
          value={chosen.action}
          onChange={(action) => choose({ action })}
          options={[
            { value: '', text: t('audit.action.all') },
            ...ACTIONS.filter((one) => (chosen.kind ? kindOf(one) === chosen.kind : kindOf(one) !== 'user')).map((one) => ({
              value: one as string,
              text: actionName(one),
            })),
          ]}
        />
        <Field name="actor" label={t('audit.actor')} placeholder="usr_…" value={chosen.actor} onChange={(actor) => choose({ actor })} />
        <Field name="subject" label={t('audit.subject')} placeholder="mem_…, prj_…" value={chosen.subject} onChange={(subject) => choose({ subject })} />
        <Field name="since" type="date" label={t('audit.since')} value={chosen.since} onChange={(since) => choose({ since })} />
        <Field name="until" type="date" label={t('audit.until')} value={chosen.until} onChange={(until) => choose({ until })} />
        {filter ? (
          <Button look="quiet" onPress={clear}>
            {t('audit.clear')}
          </Button>
        ) : null}
      </div>
      <PagedList
        label={t('audit.title')}
        document={AuditTrailDocument}
        variables={{ organizationId, filter }}
        connection={({ organization }) => {
          const trail = organization?.auditTrail;
          if (!trail) return null;
          const { hasPreviousPage, startCursor } = trail.pageInfo;
          return { nodes: [...trail.nodes].reverse(), pageInfo: { hasNextPage: hasPreviousPage, endCursor: startCursor } };
        }}
        onOpen={setOpen}
        empty={
          filter ? (
            <Empty title={t('audit.none')} action={<Button onPress={clear}>{t('audit.clear')}</Button>} />
          ) : (
            <Empty title={t('audit.empty')} />
          )
        }
        columns={[
          {
            id: 'event',
            title: t('audit.event'),
            width: 'minmax(0, 3fr)',
            cell: (event: Row) => (
              <span>
                {sentence(event)}
                <code className={css.action}>{event.action}</code>
              </span>
            ),
          },
          { id: 'sequence', title: t('audit.number'), width: '5rem', cell: ({ auditSequence }: Row) => <span className={css.number}>{auditSequence}</span> },
          { id: 'time', title: t('audit.time'), width: '11rem', cell: ({ recordedAt }: Row) => <Time at={recordedAt} /> },
          {
            id: 'open',
            title: t('audit.details'),
            width: '5.5rem',
            align: 'end',
            cell: (event: Row) => (
              <Button look="quiet" small aria-label={t('audit.detailsOf', { number: event.auditSequence ?? 0 })} onPress={() => setOpen(event)}>
                {t('audit.details')}
              </Button>
            ),
          },
        ]}
      />
      {open ? (
        <Details
          event={open}
          close={() => setOpen(null)}
          only={(change) => {
            setChosen({ ...NOTHING, ...change });
            setOpen(null);
          }}
        />
      ) : null}
    </Page>
  );
}

function Exports({ filter }: { filter: AuditFilter | null }) {
  const t = useText();
  const { client } = useApi();
  const { id } = useOrganization();
  const [state, setState] = useState<{ pending: boolean; fault: Fault | null }>({ pending: false, fault: null });
  const run = async (format: (typeof FORMATS)[number]) => {
    setState({ pending: true, fault: null });
    const asked = new URLSearchParams({ format });
    for (const name of ['actorIds', 'subjectIds', 'actions'] as const) {
      const values = filter?.[name] as readonly string[] | null | undefined;
      if (values) asked.set(name, values.map((value) => (name === 'actions' ? actionName(value as AuditAction) : value)).join(','));
    }
    if (filter?.since) asked.set('recordedSince', filter.since);
    if (filter?.until) asked.set('recordedUntil', filter.until);
    try {
      await download(client, `${location.origin}/audit/${id}/export?${asked}`, `${id}.${format}`);
      setState({ pending: false, fault: null });
      toast(t('audit.exported'));
    } catch (error) {
      setState({ pending: false, fault: error instanceof Fault ? error : new Fault('NETWORK', String(error)) });
    }
  };
  return (
    <>
      <MenuTrigger>
        <Button isPending={state.pending}>
          <Download size={16} aria-hidden />
          {t('audit.export')}
        </Button>
        <Popover className={parts.popover!} placement="bottom end">
          <Menu className={parts.menu!} aria-label={t('audit.export')}>
            {FORMATS.map((format) => (
              <ActionItem key={format} textValue={format} onAction={() => void run(format)}>
                <>
                  {t(`audit.export.${format}`)}
                  <span className={parts.menuNote}>{t(filter ? 'audit.export.filtered' : 'audit.export.whole')}</span>
                </>
              </ActionItem>
            ))}
          </Menu>
        </Popover>
      </MenuTrigger>
      <Refusals of={{ refusals: [], fault: state.fault }} />
    </>
  );
}

function Details({ event, close, only }: { event: Row; close: () => void; only: (change: Partial<Chosen>) => void }) {
  const t = useText();
  const sentence = useEventSentence();
  const changes = changesOf(event.data);
  const facts: [string, string | null | undefined][] = [
    [t('audit.subject'), event.subjectId],
    [t('audit.actor'), `${event.actor.label} (${event.actor.id})`],
    [t('audit.onBehalfOf'), event.onBehalfOf?.label],
    [t('audit.ip'), event.ip],
    [t('audit.correlation'), event.correlationId],
    [t('audit.request'), event.requestId],
  ];
  return (
    <ModalOverlay className={parts.overlay!} isOpen onOpenChange={(open) => !open && close()} isDismissable>
      <Modal className={`${parts.modal} ${css.wide}`}>
        <Dialog className={parts.dialog!}>
          <Heading slot="title" level={2}>
            {sentence(event)}
          </Heading>
          <p className={css.line}>
            <code>{event.action}</code> · {t('audit.number')} {event.auditSequence} · <Time at={event.recordedAt} />
          </p>
          {changes.length > 0 ? (
            <table className={css.changes}>
              <thead>
                <tr>
                  <th scope="col">{t('audit.field')}</th>
                  <th scope="col">{t('audit.before')}</th>
                  <th scope="col">{t('audit.after')}</th>
                </tr>
              </thead>
              <tbody>
                {changes.map(({ field, from, to }) => (
                  <tr key={field}>
                    <th scope="row">{field}</th>
                    <td>{shown(from)}</td>
                    <td>{shown(to)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          ) : null}
          <dl className={css.facts}>
            {facts.map(([name, value]) =>
              value ? (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value}</dd>
                </div>
              ) : null,
            )}
          </dl>
          <details>
            <summary className={css.summary}>JSON</summary>
            {/* Scrolls sideways, so the keyboard has to reach it. */}
            <pre className={css.json} tabIndex={0} role="region" aria-label="JSON">
              {JSON.stringify(event, (name, value: unknown) => (name === '__typename' ? undefined : value), 2)}
            </pre>
          </details>
          <div className={parts.dialogFoot}>
            <Button onPress={() => only({ subject: event.subjectId })}>{t('audit.onlySubject')}</Button>
            <Button onPress={() => only({ actor: event.actor.id })}>{t('audit.onlyActor')}</Button>
            <Button look="primary" onPress={close}>
              {t('act.close')}
            </Button>
          </div>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}

function shown(value: unknown): string {
  if (value === undefined || value === null) return '—';
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value.join(', ');
  return JSON.stringify(value, null, 1);
}
