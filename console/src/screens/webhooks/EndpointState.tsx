import type { WebhookEndpointRowFragment } from '../../generated/graphql.ts';
import { Badge } from '../../parts/Notice.tsx';
import parts from '../../parts/parts.module.css';
import { useText } from '../../texts/texts.tsx';

export type Endpoint = WebhookEndpointRowFragment;

/** A receiver is down for the service after so many failures one after the other. One that is tried again is not down yet. */
const DOWN_AFTER = 5;

/** What the endpoint's receiver answered last, where it does not take what it is sent. */
export function lastFailure({ state, retrying, taken }: Pick<Endpoint, 'state' | 'retrying' | 'taken'>) {
  if (state === 'DISABLED') return null;
  const attempts = [retrying, taken].flatMap((connection) => connection?.nodes ?? []).flatMap(({ attempts }) => attempts);
  const last = attempts.sort((a, b) => Date.parse(a.at) - Date.parse(b.at)).slice(-DOWN_AFTER);
  return last.length === DOWN_AFTER && !last.some(({ status }) => arrived(status)) ? (last.at(-1) ?? null) : null;
}

/** Enabled, failing or disabled, and why; `brief` leaves the reason to others. */
export function EndpointState({ endpoint, brief = false }: { endpoint: Endpoint; brief?: boolean }) {
  const t = useText();
  const failure = lastFailure(endpoint);
  if (endpoint.state === 'DISABLED') {
    return (
      <span>
        <Badge tone="bad">{t('webhooks.state.DISABLED')}</Badge>
        {endpoint.disabledReason && !brief ? <span className={parts.sub}> {endpoint.disabledReason}</span> : null}
      </span>
    );
  }
  return failure ? (
    <span>
      <Badge tone="warn">{t('webhooks.state.failing')}</Badge>
      {brief ? null : <span className={parts.sub}> {failure.error ?? (failure.status ? t('webhooks.answered', { status: String(failure.status) }) : '')}</span>}
    </span>
  ) : (
    <Badge tone="good">{t('webhooks.state.ENABLED')}</Badge>
  );
}

/** A status of 2xx counts as delivered, and nothing else does. */
export function arrived(status: number | null | undefined): boolean {
  return status != null && status >= 200 && status < 300;
}
