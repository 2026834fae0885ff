import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';
import { emulateSession } from './dev-session.mjs';

const service = process.env.CONSOLE_SERVICE ?? 'http://127.0.0.1:8080';

export default defineConfig({
  base: '/console/',
  plugins: [react(), { name: 'session', configureServer: (server) => void server.middlewares.use(emulateSession()) }],
  resolve: { conditions: ['tenancy-source', 'module', 'browser', 'development|production'] },
  server: {
    host: '127.0.0.1',
    proxy: Object.fromEntries(['/graphql', '/audit', '/events', '/webhooks'].map((path) => [path, service])),
  },
  build: {
    target: 'es2022',
    // The policy allows data: for images alone, and one file each keeps the manifest simple.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
