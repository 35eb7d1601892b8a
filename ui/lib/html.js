// Elements: Preact with templates of htm. Data in a template becomes text, never markup.

import { h, render, createContext } from "../vendor/preact.js";
import {
  useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
} from "../vendor/hooks.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export {
  h, render, createContext,
  useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
};
