import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useState } from 'react';
import { IntlProvider, useIntl } from 'react-intl';
import type english from '../generated/texts.en.json';

/** The key of a text: of `src/texts/en.json`, or of the `en.json` of a screen. */
export type TextKey = keyof typeof english;
export type Language = 'en' | 'de';
type Values = Record<string, string | number | Date | null | undefined>;

export const LANGUAGES: Record<Language, string> = { en: 'English', de: 'Deutsch' };

const LanguageContext = createContext<{ language: Language; choose(language: Language): void }>({
  language: 'en',
  choose: () => undefined,
});
export const useLanguage = () => useContext(LanguageContext);

/** The texts of a language are a chunk of their own; only one is loaded. */
export function Texts({ children }: { children: ReactNode }) {
  const [language, setLanguage] = useState(preferred);
  const [loaded, setLoaded] = useState<{ language: Language; messages: Record<string, string> } | null>(null);
  useEffect(() => {
    let current = true;
    const load = language === 'de' ? import('../generated/texts.de.json') : import('../generated/texts.en.json');
    void load.then(({ default: messages }) => {
      if (!current) return;
      document.documentElement.lang = language;
      setLoaded({ language, messages });
    });
    return () => {
      current = false;
    };
  }, [language]);
  const choose = useCallback((next: Language) => {
    try {
      localStorage.setItem('language', next);
    } catch {
      // Storage is shut: the choice holds until the page is closed.
    }
    setLanguage(next);
  }, []);
  const context = useMemo(() => ({ language, choose }), [language, choose]);
  if (!loaded) return null;
  return (
    <LanguageContext.Provider value={context}>
      <IntlProvider locale={localeOf(loaded.language)} messages={loaded.messages} defaultLocale="en">
        {children}
      </IntlProvider>
    </LanguageContext.Provider>
  );
}

/** `t('home.created', { name })`. */
export function useText(): (key: TextKey, values?: Values) => string {
  const intl = useIntl();
  return useCallback((key, values) => intl.formatMessage({ id: key }, values), [intl]);
}

/** A text whose key is made at run time, such as an action's; `fallback` where there is none. */
export function useTextMaybe(): (key: string, fallback: string, values?: Values) => string {
  const intl = useIntl();
  return useCallback(
    (key, fallback, values) => (intl.messages[key] ? intl.formatMessage({ id: key }, values) : fallback),
    [intl],
  );
}

function preferred(): Language {
  try {
    const chosen = localStorage.getItem('language');
    if (chosen === 'en' || chosen === 'de') return chosen;
  } catch {
    // As above.
  }
  return navigator.language.startsWith('de') ? 'de' : 'en';
}

/** The region is the browser's, so that dates and numbers are as the person writes them. */
function localeOf(language: Language): string {
  return navigator.languages.find((locale) => locale.startsWith(language)) ?? language;
}
