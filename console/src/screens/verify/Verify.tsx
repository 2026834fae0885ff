import { ShieldCheck } from 'lucide-react';
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { ProgressBar } from 'react-aria-components';
import { Fault } from '@tenancy/client';
import { useApi, useRead } from '../../api/hooks.ts';
import { VerifyCheckpointDocument, type VerifyCheckpointQuery } from '../../generated/graphql.ts';
import { Button } from '../../parts/Button.tsx';
import { faultOfResponse } from '../../parts/download.ts';
import { Field } from '../../parts/Field.tsx';
import { Notice, Refusals } from '../../parts/Notice.tsx';
import { Card, Page } from '../../parts/Page.tsx';
import parts from '../../parts/parts.module.css';
import { Empty, Show, Skeleton } from '../../parts/States.tsx';
import { Time } from '../../parts/Values.tsx';
import { useOrganization } from '../../shell/standing.tsx';
import { useText, useTextMaybe } from '../../texts/texts.tsx';
import { utf8 } from './bytes.ts';
import { recall, type Remembered, remember } from './memory.ts';
import { verifyStream } from './run.ts';
import type { Finding, Progress, Verdict } from './verifier.ts';
import css from './verify.module.css';

type Checkpoint = NonNullable<VerifyCheckpointQuery['auditCheckpoint']>;
interface Done {
  verdict: Verdict;
  /** What was remembered when it was verified. */
  before: Remembered | null;
  seconds: number;
}

export default function Verify() {
  const t = useText();
  const { id: organizationId } = useOrganization();
  const reading = useRead(VerifyCheckpointDocument, { organizationId });
  return (
    <Page title={t('verify.title')} text={t('verify.text')}>
      <Show reading={reading}>
        {({ auditCheckpoint }) =>
          auditCheckpoint ? (
            <Verifying checkpoint={auditCheckpoint} />
          ) : reading.state === 'ready' && reading.refreshing ? (
            <div aria-busy="true">
              <Skeleton lines={4} />
            </div>
          ) : (
            <Empty title={t('verify.none')}>{t('verify.none.text')}</Empty>
          )
        }
      </Show>
    </Page>
  );
}

function Verifying({ checkpoint }: { checkpoint: Checkpoint }) {
  const t = useText();
  const { client } = useApi();
  const { id: organizationId } = useOrganization();
  const [remembered, setRemembered] = useState(() => recall(organizationId));
  const [keys, setKeys] = useState(remembered?.keys ?? '');
  const [progress, setProgress] = useState<Progress | null>(null);
  const [fault, setFault] = useState<Fault | null>(null);
  const [done, setDone] = useState<Done | null>(null);
  const running = useRef<AbortController | null>(null);
  const outcome = useRef<HTMLDivElement>(null);
  useEffect(() => () => running.current?.abort(), []);
  useEffect(() => outcome.current?.focus(), [done]);

  const run = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    if (progress) return;
    const { signal } = (running.current = new AbortController());
    setDone(null);
    setFault(null);
    setProgress({ events: 0, of: checkpoint.treeSize });
    const started = performance.now();
    const known = keys.split(/\s+/).filter(Boolean);
    const before = recall(organizationId);
    try {
      const response = await client.fetch(`${location.origin}/audit/${organizationId}/export`, { signal });
      if (!response.ok || !response.body) throw await faultOfResponse(response);
      const wanted = {
        keys: known,
        keyless: known.length === 0,
        older: [
          { name: 'service', bytes: utf8(checkpoint.note) },
          ...(before ? [{ name: 'remembered', bytes: utf8(before.note) }] : []),
        ],
      };
      const verdict = await verifyStream(response.body, wanted, setProgress, signal);
      setDone({ verdict, before, seconds: (performance.now() - started) / 1000 });
      if (verdict.verdict === 'accepted' && verdict.note) {
        const next = { note: verdict.note, size: verdict.to, at: new Date().toISOString(), keys: known.join(' ') };
        remember(organizationId, next);
        setRemembered(next);
      }
    } catch (error) {
      if (!signal.aborted) setFault(error instanceof Fault ? error : new Fault('INTERNAL', String(error)));
    } finally {
      setProgress(null);
    }
  };

  return (
    <>
      <Card title={t('verify.what')}>
        <form className={parts.form} onSubmit={(event) => void run(event)}>
          <p className={css.about}>
            {t('verify.newest', { size: checkpoint.treeSize })} <Time at={checkpoint.signedAt} />
          </p>
          {checkpoint.failure ? (
            <Notice tone="bad">
              <p>{t('verify.failure', { failure: checkpoint.failure })}</p>
            </Notice>
          ) : null}
          <Field name="keys" label={t('verify.key')} hint={t('verify.key.hint')} placeholder="NAME+ID+KEY" rows={2} value={keys} onChange={setKeys} />
          <div className={css.memory}>
            {remembered ? (
              <>
                <span>
                  {t('verify.remembered', { size: remembered.size })} <Time at={remembered.at} />
                </span>
                <Button
                  small
                  look="quiet"
                  onPress={() => {
                    remember(organizationId, null);
                    setRemembered(null);
                  }}
                >
                  {t('verify.forget')}
                </Button>
              </>
            ) : (
              <span>{t('verify.firstVisit')}</span>
            )}
          </div>
          <Refusals of={{ refusals: [], fault }} />
          <div className={css.act}>
            <Button type="submit" look="primary" isPending={progress !== null}>
              <ShieldCheck size={16} aria-hidden />
              {t('verify.run')}
            </Button>
            {progress ? <Button onPress={() => running.current?.abort()}>{t('act.cancel')}</Button> : null}
          </div>
          {progress ? (
            <ProgressBar
              className={css.progress!}
              aria-label={t('verify.running')}
              value={progress.events}
              maxValue={Math.max(progress.of, 1)}
              valueLabel={t('verify.progress', { events: progress.events, of: progress.of })}
            >
              {({ percentage, valueText }) => (
                <>
                  <span>{valueText}</span>
                  <div className={css.track}>
                    <div className={css.fill} style={{ width: `${percentage ?? 0}%` }} />
                  </div>
                </>
              )}
            </ProgressBar>
          ) : null}
        </form>
      </Card>
      {done ? (
        <div ref={outcome} tabIndex={-1} className={css.outcome}>
          <Outcome {...done} />
        </div>
      ) : null}
    </>
  );
}

function Outcome({ verdict, before, seconds }: Done) {
  const t = useText();
  const tm = useTextMaybe();
  const { findings, wrong } = verdict;
  const tone = { accepted: 'good', unsigned: 'warn', refused: 'bad' } as const;
  const count = verdict.to - verdict.from + 1;
  const proved = [
    ...(verdict.verdict === 'refused'
      ? []
      : [
          t('verify.proved.events', { count, root: verdict.root ?? '' }),
          ...(verdict.signers.length > 0 ? [t('verify.proved.signed', { keys: verdict.signers.join(', ') })] : []),
          t('verify.proved.personal', { count: verdict.opened }),
          t('verify.proved.service'),
          ...(before ? [t('verify.proved.remembered', { size: before.size, added: verdict.to - before.size })] : []),
        ]),
  ];
  const not = [
    verdict.signers.length > 0 ? t('verify.not.key') : t('verify.not.noKey'),
    ...(before ? [] : [t('verify.not.first')]),
    ...(verdict.closed > 0 ? [t('verify.not.closed', { count: verdict.closed })] : []),
    t('verify.not.everything'),
    t('verify.not.witnesses'),
    t('verify.not.page'),
  ];
  const why = wrong
    ? wrong.code === 'older'
      ? tm(`verify.wrong.${wrong.values.why}`, String(wrong.values.why), wrong.values)
      : tm(`verify.wrong.${wrong.code}`, wrong.code, wrong.values)
    : null;
  return (
    <Card title={t('verify.outcome')}>
      <div className={css.verdict}>
        <Notice tone={tone[verdict.verdict]} role="status">
          <p>
            <strong>{t(`verify.verdict.${verdict.verdict}`)}</strong> {t('verify.took', { events: verdict.events, seconds })}
          </p>
          {why ? <p>{wrong?.code.startsWith('older') ? `${t(`verify.older.${String(wrong.values.name)}` as 'verify.older.service')} ${why}` : why}</p> : null}
        </Notice>
        {findings.length > 0 ? (
          <section aria-labelledby="findings">
            <h3 id="findings">{t('verify.findings', { count: findings.length + verdict.more })}</h3>
            {verdict.hashesSealed ? null : <p className={css.about}>{t('verify.findings.unsure')}</p>}
            <ul className={css.findings}>
              {findings.map((finding, at) => (
                <li key={at} data-kind={finding.kind}>
                  <FindingLine finding={finding} />
                </li>
              ))}
            </ul>
            {verdict.more > 0 ? <p className={css.about}>{t('verify.findings.more', { count: verdict.more })}</p> : null}
          </section>
        ) : null}
        {proved.length > 0 ? (
          <section aria-labelledby="proved">
            <h3 id="proved">{t('verify.proved')}</h3>
            <ul className={css.list}>
              {proved.map((text) => (
                <li key={text}>{text}</li>
              ))}
            </ul>
          </section>
        ) : null}
        <section aria-labelledby="notProved">
          <h3 id="notProved">{t('verify.not')}</h3>
          <ul className={css.list}>
            {not.map((text) => (
              <li key={text}>{text}</li>
            ))}
          </ul>
        </section>
      </div>
    </Card>
  );
}

function FindingLine({ finding: { kind, place, sealedAt, id, action, field } }: { finding: Finding }) {
  const t = useText();
  return (
    <>
      {t(`verify.finding.${kind}`, { place: place ?? 0, sealedAt: sealedAt ?? 0, field: field ?? '' })}
      {id ? (
        <code className={css.code}>
          {action} {id}
        </code>
      ) : null}
    </>
  );
}
