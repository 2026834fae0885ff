import { ChevronDown } from 'lucide-react';
import { Button as AriaButton, Label, ListBox, ListBoxItem, Popover, Select, SelectValue } from 'react-aria-components';
import { buttonClass } from './Button.tsx';
import css from './parts.module.css';

/** One of several, for example a filter. `labelled` shows the label above it, as in a form. */
export function Choice<Value extends string>({
  label,
  labelled = false,
  name,
  value,
  options,
  onChange,
}: {
  label: string;
  labelled?: boolean;
  name?: string;
  value: Value;
  options: readonly { value: Value; text: string }[];
  onChange: (value: Value) => void;
}) {
  return (
    <Select className={labelled ? css.field! : css.choice!} name={name} value={value} onChange={(key) => onChange(key as Value)}>
      <Label className={labelled ? css.label! : 'hidden-text'}>{label}</Label>
      <AriaButton className={buttonClass({})}>
        <SelectValue className={css.choiceValue!} />
        <ChevronDown size={14} aria-hidden />
      </AriaButton>
      <Popover className={css.popover!}>
        <ListBox className={css.menu!}>
          {options.map(({ value, text }) => (
            <ListBoxItem key={value} id={value} className={css.menuItem!}>
              {text}
            </ListBoxItem>
          ))}
        </ListBox>
      </Popover>
    </Select>
  );
}
