import { X } from 'lucide-react';
import {
  Text,
  UNSTABLE_Toast as Toast,
  UNSTABLE_ToastContent as ToastContent,
  UNSTABLE_ToastQueue as ToastQueue,
  UNSTABLE_ToastRegion as ToastRegion,
} from 'react-aria-components';
import { useText } from '../texts/texts.tsx';
import { Button } from './Button.tsx';
import css from './parts.module.css';

interface Told {
  text: string;
  /** Takes back what was done. Only what the service can restore. */
  undo?: () => Promise<unknown> | void;
}

const queue = new ToastQueue<Told>({ maxVisibleToasts: 3 });

/** Tells what was done. It stays longer where it can be undone, and as long as it is hovered or focused. */
export function toast(text: string, options: Pick<Told, 'undo'> = {}): void {
  queue.add({ text, ...options }, { timeout: options.undo ? 12_000 : 6_000 });
}

export function Toasts() {
  const t = useText();
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
                void toast.content.undo?.();
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
