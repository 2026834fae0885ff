import './styles/tokens.css';
import './styles/base.css';
import { StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { type Config, loadConfig } from './session/config.ts';
import { Session } from './session/session.ts';
import { App } from './shell/App.tsx';
import { Texts } from './texts/texts.tsx';

const session = new Session();
const configured = loadConfig().then(
  (config) => {
    void session.start(config);
    return config;
  },
  () => {
    session.fail('unreachable');
    return null;
  },
);

function Root() {
  const [config, setConfig] = useState<Config | null>(null);
  useEffect(() => void configured.then(setConfig), []);
  return (
    <Texts>
      <App config={config} session={session} />
    </Texts>
  );
}

const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <Root />
    </StrictMode>,
  );
}
