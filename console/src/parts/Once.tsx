import { Check, Copy } from 'lucide-react';
import { useState } from 'react';
import { Input, Label, TextField } from 'react-aria-components';
import { useText } from '../texts/texts.tsx';
import { Button } from './Button.tsx';
import css from './once.module.css';
import parts from './parts.module.css';

/** A value to be copied, such as a secret that is shown once. It lives in this field only. */
export function CopyField({ label, value }: { label: string; value: string }) {
  const t = useText();
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(value);
      setCopied(true);
      setTimeout(() => setCopied(false), 3000);
    } catch {
      // The clipboard is shut: the field can still be selected.
    }
  };
  return (
    <TextField className={parts.field!} value={value} isReadOnly>
      <Label className={parts.label!}>{label}</Label>
      <div className={css.row}>
        <Input className={`${parts.input} ${css.value}`} onFocus={(event) => event.currentTarget.select()} autoComplete="off" spellCheck="false" />
        <Button onPress={() => void copy()} aria-label={t('invitations.copy.of', { what: label })}>
          {copied ? <Check size={14} aria-hidden /> : <Copy size={14} aria-hidden />}
          {t(copied ? 'invitations.copied' : 'invitations.copy')}
        </Button>
      </div>
      <span className="hidden-text" role="status">
        {copied ? t('invitations.copied') : ''}
      </span>
    </TextField>
  );
}
