import { sentences } from "@shared/i18n";

export const say = sentences({
  ko: {
    title: "라이브 뷰", connected: "연결됨", disconnected: "연결 끊김", functions: "함수",
    asleep: "잠듦", waking: "깨는 중", awake: "깨어 있음", working: "처리 중",
    processes: "프로세스", coldStarts: "콜드 스타트", lastStart: "최근 시작", inFlight: "처리 중",
    queued: "대기", flow: "이벤트 흐름", pause: "멈춤", resume: "계속", pending: "배달 대기 {count}건",
    leftOut: "이 구간에서 {count}건은 표시하지 않음", orders: "주문", order: "주문 번호", path: "주문의 경로",
    chooseOrder: "주문을 선택하면 접수부터 정산까지의 경로가 표시됩니다.", noOrders: "아직 주문이 없습니다.",
    due: "예정된 작업", noDue: "예정된 작업이 없습니다.", jobs: "건수", next: "다음", now: "지금",
    mails: "메일", noMails: "아직 메일이 없습니다.", logs: "로그", trace: "trace ID", find: "찾기",
    noLogs: "이 trace의 로그가 없습니다.", invariants: "불변식", holds: "{count}개 성립",
    broken: "{count}개 위반", checking: "아직 검사하지 않았습니다.", switches: "장애 스위치",
    duplicate: "중복 배달", reorder: "순서 바뀜", lose: "이벤트 유실", kill: "프로세스 종료",
    slowProvider: "느린 결제사", off: "끔", total: "합계", status: "상태", at: "시각", none: "아직 활동이 없습니다.",
    elapsed: "경과", shop: "상점은 다른 포트에서 열립니다. 이 화면은 로컬 개발용입니다.",
  },
  en: {
    title: "Live view", connected: "Connected", disconnected: "Disconnected", functions: "Functions",
    asleep: "asleep", waking: "waking", awake: "awake", working: "working",
    processes: "processes", coldStarts: "cold starts", lastStart: "last start", inFlight: "in flight",
    queued: "queued", flow: "Event flow", pause: "Pause", resume: "Resume", pending: "{count} deliveries pending",
    leftOut: "{count} of this interval are not shown", orders: "Orders", order: "Order", path: "Path of an order",
    chooseOrder: "Choose an order to see its path from request to settlement.", noOrders: "There is no order yet.",
    due: "Due jobs", noDue: "No job is due.", jobs: "Jobs", next: "Next", now: "now",
    mails: "Mails", noMails: "There is no mail yet.", logs: "Logs", trace: "Trace id", find: "Find",
    noLogs: "No log has this trace.", invariants: "Invariants", holds: "{count} hold",
    broken: "{count} broken", checking: "Not evaluated yet.", switches: "Fault switches",
    duplicate: "Duplicate events", reorder: "Reorder events", lose: "Lose events", kill: "Kill processes",
    slowProvider: "Slow provider", off: "off", total: "Total", status: "Status", at: "At", none: "Nothing has happened yet.",
    elapsed: "Elapsed", shop: "The shop has another port. This page is for local development.",
  },
});
