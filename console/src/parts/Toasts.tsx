import { X } from 'lucide-react';
import {
  Text,
  UNSTABLE_Toast as Toast,
  UNSTABLE_ToastContent as ToastContent,
  UNSTABLE_ToastQueue as ToastQueue,
  UNSTABLE_ToastRegion as ToastRegion,
} from 'react-aria-components';
import type { Outcome } from '@tenancy/client';
import { useText } from '../texts/texts.tsx';
import { Button } from './Button.tsx';
import css from './parts.module.css';

interface Told {
  text: string;
  /** Takes back what was done, by the counter-command. Only what the service can restore. */
  undo?: (reason: string | undefined) => Promise<Outcome<unknown> | null>;
  /** The reason of the act, where there was one. That of the undo is made of it. */
  reason?: string | undefined;
}

const queue = new ToastQueue<Told>({ maxVisibleToasts: 3 });

/** Tells what was done. It stays longer where it can be undone, and as long as it is hovered or focused. */
export function toast(text: string, options: Omit<Told, 'text'> = {}): void {
  queue.add({ text, ...options }, { timeout: options.undo ? 12_000 : 6_000 });
}

export function Toasts() {
  const t = useText();
  const takeBack = async ({ undo, reason }: Told) => {
    const outcome = await undo?.(reason && t('act.undone.reason', { reason }));
    toast(outcome?.done ? t('act.undone') : t('act.undone.not', { because: outcome?.refusals?.map(({ message }) => message).join(' ') ?? '' }));
  };
  return (
    <ToastRegion queue={queue} className={css.toasts!} aria-label={t('toast.region')}>
      {({ toast }) => (
        <Toast toast={toast} className={css.toast!}>
          <ToastContent className={css.toastText!}>
            <Text slot="title">{toast.content.text}</Text>
          </ToastContent>
          {toast.content.undo ? (
            <Button
              small
              onPress={() => {
                void takeBack(toast.content);
                queue.close(toast.key);
              }}
            >
              {t('act.undo')}
            </Button>
          ) : null}
          <Button slot="close" icon small aria-label={t('act.close')}>
            <X size={14} aria-hidden />
          </Button>
        </Toast>
      )}
    </ToastRegion>
  );
}
