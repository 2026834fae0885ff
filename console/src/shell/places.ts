/** Addresses inside the console. The router puts `/console` before them. */
export const places = {
  home: '/',
  organization: (id: string, path = '') => `/o/${id}${path}`,
  operate: (path = '') => `/operate${path}`,
};
